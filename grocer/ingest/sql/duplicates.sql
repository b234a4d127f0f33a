{% macro present(key) %}{% for column in key %}{{ column }} IS NOT NULL{{ " AND " if not loop.last }}{% endfor %}{% endmacro %}

{% macro quantiles(table, column, fractions, percent) %}
SELECT approx_quantile({{ column }}, {{ fractions }})
FROM {{ table }} USING SAMPLE {{ percent }}% (system, 1)
{% endmacro %}

{# Hashes of the keys whose first column lies from `low` to below `high`; None: no bound. #}
{% macro key_hashes(table, key, low, high) %}
SELECT hash({{ key | join(", ") }}) AS hash
FROM {{ table }}
WHERE {{ present(key) }}
{% if low is not none %}
  AND {{ key[0] }} >= {{ low }}
{% endif %}
{% if high is not none %}
  AND {{ key[0] }} < {{ high }}
{% endif %}
{% endmacro %}

{% macro count_duplicates(table, key) %}
SELECT coalesce(sum(n - 1), 0)::BIGINT
FROM (
  SELECT count(*) AS n FROM {{ table }} WHERE {{ present(key) }} GROUP BY {{ key | join(", ") }}
)
{% endmacro %}
