{# The value of the text `x` in a type of numbers; null if it has none. `7.0` is a whole number. #}
{% macro value(x, type) %}
{% if type == "VARCHAR" %}{{ x }}{% elif type == "FLOAT" %}TRY_CAST({{ x }} AS FLOAT){% else %}
coalesce(TRY_CAST({{ x }} AS {{ type }}), TRY_CAST(round(TRY_CAST({{ x }} AS DECIMAL(38, 9))) AS {{ type }})){% endif %}
{% endmacro %}

{# The columns, `rowid`, which orders the rows by file, then position, and `invalid`: the first invalid value.
   file: hexadecimal name of the file.
   DuckDB and pandas write an empty text and NaN where this has a null. #}
{% macro typed(columns, floating, is_csv, file) %}
SELECT
{% for name, type in columns.items() %}
  {{ value(name, type) }} AS {{ name }},
{% endfor %}
  named_struct('file', '{{ file }}', 'row', monotonically_increasing_id()) AS rowid,
  CASE
{% if is_csv %}
    WHEN malformed IS NOT NULL THEN named_struct('name', '', 'value', malformed)
{% endif %}
{% for name, type in columns.items() if type != "VARCHAR" %}
    WHEN {{ name }} IS NOT NULL AND {{ value(name, type) }} IS NULL THEN named_struct('name', '{{ name }}', 'value', {{ name }})
{% endfor %}
  END AS invalid
FROM (
  SELECT
{% for name in columns %}
    {{ "nullif(" ~ name ~ ", '')" if is_csv else "nullif(" ~ name ~ "::STRING, 'NaN')" if name in floating else name ~ "::STRING" }} AS {{ name }}{{ "," if is_csv or not loop.last }}
{% endfor %}
{% if is_csv %}
    malformed
{% endif %}
  FROM file
)
{% endmacro %}

{% macro first_invalid(table) %}
SELECT invalid.name, invalid.value FROM {{ table }} WHERE invalid IS NOT NULL ORDER BY rowid LIMIT 1
{% endmacro %}
