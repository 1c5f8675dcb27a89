/* sql/install/78_corrections.sql */

-- ---- Corrections: annotations that somebody has changed by hand ----

CREATE FUNCTION corrections(
    annotator name,
    OUT prompt text,
    OUT wrong text,
    OUT "right" text,
    OUT system_prompt text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_corrections' LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION corrections IS 'the annotations that were changed by hand: what was asked, what was wrong, and what is right';
