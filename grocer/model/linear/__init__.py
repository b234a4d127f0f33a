"""The linear model: logistic regression on TF-IDF features of product names."""
