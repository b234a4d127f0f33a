{# DuckDB and Spark run these statements, except for those of the tables tally and product_details. #}

{# A number whose bit i is set where the i-th column is null. #}
{% macro null_mask(columns, prefix="") %}{% for column in columns %}(({{ prefix }}{{ column }} IS NULL)::INT << {{ loop.index0 }}){{ " + " if not loop.last }}{% endfor %}{% endmacro %}

{% macro any_null(columns, prefix="") %}({% for column in columns %}{{ prefix }}{{ column }} IS NULL{{ " OR " if not loop.last }}{% endfor %}){% endmacro %}

{% macro cast(types) %}{% for name, type in types.items() %}{{ name }}::{{ type }} AS {{ name }}{{ ", " if not loop.last }}{% endfor %}{% endmacro %}

{# A view of `table` without duplicate keys, which would multiply order lines. #}
{% macro create_deduplicated(table, key, has_duplicates) %}
CREATE OR REPLACE TEMPORARY VIEW {{ table }}_deduplicated AS
SELECT * FROM {{ table }} WHERE {{ key }} IS NOT NULL
{% if has_duplicates %}
QUALIFY row_number() OVER (PARTITION BY {{ key }} ORDER BY rowid) = 1
{% endif %}
{% endmacro %}

{% macro create_product_details(types) %}
CREATE TABLE product_details AS
SELECT product_id, {{ cast(types) }}, {{ null_mask(types) }} AS product_nulls
FROM products_deduplicated
LEFT JOIN aisles_deduplicated USING (aisle_id)
LEFT JOIN departments_deduplicated USING (department_id)
{% endmacro %}

{% macro create_order_details(types) %}
CREATE OR REPLACE TEMPORARY VIEW order_details AS
SELECT order_id, {{ cast(types) }} FROM orders_deduplicated
{% endmacro %}

{% macro value_ranges(table, columns) %}
SELECT
{% for name, type in columns.items() %}
  min({{ name }}), max({{ name }}), {{ "bool_and(" ~ name ~ " = floor(" ~ name ~ "))" if type == "FLOAT" else "true" }}{{ "," if not loop.last }}
{% endfor %}
FROM {{ table }}
{% endmacro %}

{# `table` with its key in the narrow type of the lines: a key that does not fit has no line. #}
{% macro narrowed(table, key, types, columns) %}(
  SELECT TRY_CAST({{ key }} AS {{ types[key] }}) AS {{ key }}, {{ columns | join(", ") }} FROM {{ table }}
) USING ({{ key }}){% endmacro %}

{% macro join(columns, line_types, product_columns, order_columns) %}
SELECT {{ columns | join(", ") }}
FROM (SELECT {{ cast(line_types) }} FROM lines)
JOIN {{ narrowed("product_details", "product_id", line_types, product_columns) }}
{% if order_columns %}
JOIN {{ narrowed("order_details", "order_id", line_types, order_columns) }}
{% endif %}
WHERE {% for column in columns %}{{ column }} IS NOT NULL{{ " AND " if not loop.last }}{% endfor %}
{% endmacro %}

{# ---- Counts: lines by product and null masks ---------------------------------------------- #}

{% macro all_counts(line_columns) %}
SELECT product_id, {{ null_mask(line_columns, "l.") }} AS line_nulls, count(*) AS n
FROM lines l
GROUP BY ALL
{% endmacro %}

{# Lines whose order has a null value; without orders, none. #}
{% macro null_order_counts(line_columns, order_columns, has_orders) %}
{% if has_orders %}
SELECT product_id, {{ null_mask(line_columns, "l.") }} AS line_nulls, order_nulls, count(*) AS n
FROM lines l
JOIN (
  SELECT order_id, {{ null_mask(order_columns) }} AS order_nulls
  FROM order_details
  WHERE {{ any_null(order_columns) }}
) USING (order_id)
GROUP BY ALL
{% else %}
SELECT product_id, {{ null_mask(line_columns, "l.") }} AS line_nulls, 0 AS order_nulls, 0 AS n
FROM lines l
WHERE false
{% endif %}
{% endmacro %}

{% macro lines_without_order(line_columns) %}
SELECT
  product_id, {{ null_mask(line_columns, "l.") }} AS line_nulls, NULL::INT AS order_nulls,
  count(*) AS n
FROM lines l
ANTI JOIN order_details USING (order_id)
GROUP BY ALL
{% endmacro %}

{# All lines: those of `null_order_counts`, and the others, whose order has no null. #}
{% macro create_tally() %}
CREATE TABLE tally AS
SELECT t.*, p.product_nulls
FROM (
  SELECT product_id, line_nulls, order_nulls, n FROM null_order_counts
  UNION ALL
  SELECT product_id, line_nulls, 0, sum(n)
  FROM (
    FROM all_counts
    UNION ALL
    SELECT product_id, line_nulls, -n FROM null_order_counts
  )
  GROUP BY ALL
  HAVING sum(n) > 0
) t
LEFT JOIN product_details p USING (product_id)
{% endmacro %}

{% macro create_joined() %}
CREATE VIEW joined AS
FROM tally WHERE product_nulls IS NOT NULL AND order_nulls IS NOT NULL
{% endmacro %}

{% macro sum_lines(table, condition="true") %}
SELECT coalesce(sum(n), 0) FROM {{ table }} WHERE {{ condition }}
{% endmacro %}

{# Joined lines with a null, for each (mask, bit) of a column. #}
{% macro null_counts(bits) %}
SELECT
{% for mask, bit in bits %}
  coalesce(sum(n) FILTER (({{ mask }} >> {{ bit }}) & 1 = 1), 0)::BIGINT{{ "," if not loop.last }}
{% endfor %}
FROM joined
{% endmacro %}

{# ---- Rejected lines ------------------------------------------------------------------------ #}

{% macro all_lines(has_orders) %}
FROM lines
LEFT JOIN product_details p USING (product_id)
{% if has_orders %}
LEFT JOIN order_details o USING (order_id)
{% endif %}
{% endmacro %}

{% macro with_unknown_product(has_orders) %}
{{ all_lines(has_orders) }} WHERE p.product_id IS NULL
{% endmacro %}

{% macro with_unknown_order() %}
{{ all_lines(true) }} WHERE p.product_id IS NOT NULL AND o.order_id IS NULL
{% endmacro %}

{% macro with_null(columns, has_orders) %}
{{ all_lines(has_orders) }}
WHERE p.product_id IS NOT NULL{{ " AND o.order_id IS NOT NULL" if has_orders }} AND {{ any_null(columns) }}
{% endmacro %}

{# Only the few orders with a null are joined: no table of all orders is built. #}
{% macro with_null_in_order(order_columns) %}
FROM lines
LEFT JOIN product_details p USING (product_id)
JOIN order_details o USING (order_id)
WHERE p.product_id IS NOT NULL AND o.order_id IS NOT NULL AND {{ any_null(order_columns, "o.") }}
{% endmacro %}

{% macro with_duplicate_key(has_orders) %}
{{ all_lines(has_orders) }}
WHERE (order_id, product_id) IN (
  SELECT order_id, product_id FROM lines GROUP BY ALL HAVING count(*) > 1
)
{% endmacro %}

{% macro with_duplicate_order() %}
FROM orders
WHERE order_id IN (SELECT order_id FROM orders GROUP BY ALL HAVING count(*) > 1)
{% endmacro %}

{% macro rejected(reason, columns, lines, limit) %}
SELECT {{ reason | literal }} AS reason, {{ columns | join(", ") }} {{ lines }} LIMIT {{ limit }}
{% endmacro %}
