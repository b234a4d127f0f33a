{% macro create_empty(table, columns) %}
CREATE TABLE {{ table }} (
{% for name, type in columns.items() %}
  {{ name }} {{ type }}{{ "," if not loop.last }}
{% endfor %}
)
{% endmacro %}

{% macro create_lines(tables) %}
CREATE OR REPLACE TEMPORARY VIEW lines AS
{% for table in tables %}
FROM {{ table }}{{ " UNION ALL" if not loop.last }}
{% endfor %}
{% endmacro %}

{# Products with their department, aisle and number of purchases.
   purchases: SQL; of lines, those without a null. #}
{% macro products(purchases, without_nulls) %}
SELECT
  p.product_id, p.product_name, p.aisle_id, aisle, p.department_id, department,
  ({{ purchases }})::BIGINT AS purchases
FROM products p
LEFT JOIN aisles_deduplicated USING (aisle_id)
LEFT JOIN departments_deduplicated USING (department_id)
LEFT JOIN (
  SELECT product_id, sum(n) AS n FROM joined WHERE {{ without_nulls }} GROUP BY ALL
) b USING (product_id)
ORDER BY p.rowid
{% endmacro %}

{% macro count_orphan_products(dimension, key) %}
SELECT count(*) FROM products p ANTI JOIN {{ dimension }} d ON p.{{ key }} = d.{{ key }}
{% endmacro %}
