"""The KFP components: one thin file a step."""
