{# Types are given, never inferred: inference turns the product name 805 into a number.
   Quotes follow RFC 4180 (doubled); a backslash has no special meaning.
   Other columns are named by position: the reader rejects names that differ only in case. #}
{% macro read_csv(path, columns, header) %}
SELECT
{% for name, type in columns.items() %}
  {{ name | identifier if name in header else "NULL::" ~ type ~ " AS " ~ (name | identifier) }}{{ "," if not loop.last }}
{% endfor %}
FROM read_csv(
  {{ path | file }}, auto_detect = false, header = true, delim = ',', quote = '"', escape = '"',
  strict_mode = true, hive_partitioning = false, columns = {
{% for name in header %}
    {{ (name if name in columns else " " ~ loop.index) | literal }}: {{ columns.get(name, "VARCHAR") | literal }}{{ "," if not loop.last }}
{% endfor %}
  }
)
{% endmacro %}

{# pandas writes a null in a column of numbers as NaN, which SQL does not treat as a null. #}
{% macro read_parquet(path, columns, header, floating) %}
SELECT
{% for name, type in columns.items() %}
{% set column = name | identifier if name in header else "NULL" %}
  CAST({{ "CASE WHEN NOT isnan(" ~ column ~ ") THEN " ~ column ~ " END" if name in floating else column }} AS {{ type }}) AS {{ name | identifier }}{{ "," if not loop.last }}
{% endfor %}
FROM read_parquet({{ path | file }}, hive_partitioning = false, binary_as_string = true)
{% endmacro %}
