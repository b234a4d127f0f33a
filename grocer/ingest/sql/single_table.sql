{# The reader rounds 1.234 to the whole number 1; in some countries it is 1,234. #}
{% macro whole_number(name) %}
CASE WHEN {{ name | identifier }} <> trunc({{ name | identifier }})
  THEN error('row ' || row_number() OVER () || ': column ' || {{ ("'" ~ name ~ "'") | literal }} || ' holds ' ||
    rtrim({{ name | identifier }}::VARCHAR, '0') || ', expected a whole number without separators')
  ELSE CAST({{ name | identifier }} AS BIGINT) END
{% endmacro %}

{# `columns` maps keys of data.columns to the file's column names. Empty labels become `missing`, empty counts 0. #}
{% macro create_catalogue(query, columns) %}
CREATE TABLE catalogue AS
SELECT
{% if "product_id" in columns %}
  {{ whole_number(columns.product_id) }} AS product_id,
{% endif %}
  {{ columns.product_name | identifier }} AS product_name,
{% for label in ["department", "aisle"] if label in columns %}
  coalesce(nullif(trim({{ columns[label] | identifier }}), ''), 'missing') AS {{ label }},
{% endfor %}
{% if "product_id" not in columns %}
  row_number() OVER () AS product_id,
{% endif %}
  {{ "coalesce(" ~ whole_number(columns.purchases) ~ ", 0)" if "purchases" in columns else "1" }} AS purchases
FROM ({{ query }})
{% endmacro %}

{% macro create_dimension(table, column) %}
CREATE TABLE {{ table }} AS
SELECT row_number() OVER (ORDER BY {{ column }}) AS {{ column }}_id, {{ column }}
FROM (SELECT DISTINCT {{ column }} FROM catalogue)
{% endmacro %}

{% macro create_products(with_aisles) %}
CREATE TABLE products AS
SELECT
  product_id, product_name, {{ "aisle_id" if with_aisles else "NULL::BIGINT AS aisle_id" }},
  department_id, purchases
FROM catalogue c
JOIN departments USING (department)
{% if with_aisles %}
JOIN aisles USING (aisle)
{% endif %}
ORDER BY c.rowid
{% endmacro %}
