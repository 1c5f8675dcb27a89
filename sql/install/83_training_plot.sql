/* sql/install/83_training_plot.sql */

-- ---- The curve of a training, for psql and for a page ----
--
-- What begins with _plot is called in the caller's name, so that the views show it what is the caller's.

-- What a training is judged by: rewards, or losses where nothing is rewarded. Of sft, held-out rows alone have rewards.
CREATE FUNCTION _plot_measure(training name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN t.method = 'sft' AND t.heldout IS NULL THEN 'loss' ELSE 'reward' END
    FROM @extschema@.training t WHERE t.name = _plot_measure.training
$$;

-- What is drawn, a row a step.
CREATE FUNCTION _plot_points(training name)
RETURNS TABLE (step int, value float8, heldout float8, error float8)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.step, CASE WHEN m = 'loss' THEN s.loss ELSE s.reward END,
           CASE WHEN m = 'loss' THEN s.heldout_loss ELSE s.heldout END,
           CASE WHEN m = 'reward' THEN s.heldout_error END
    FROM @extschema@._plot_measure(training) m, @extschema@.training_step s
    WHERE s.training = _plot_points.training
    ORDER BY s.step
$$;

-- What the axes span: steps from 0 on; values from 0 to 1 if all lie between, else round numbers around them.
CREATE FUNCTION _plot_span(training name, OUT last_step int, OUT low float8, OUT high float8)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unit float8;
BEGIN
    SELECT greatest(max(p.step), 1), min(least(p.value, p.heldout)), max(greatest(p.value, p.heldout))
    INTO last_step, low, high
    FROM @extschema@._plot_points(training) p;
    IF low IS NULL OR low >= 0 AND high <= 1 THEN
        low := 0;
        high := 1;
        RETURN;
    END IF;
    unit := 10 ^ floor(log(greatest(high - low, greatest(abs(high), abs(low)) / 100)));
    low := floor(low / unit) * unit;
    high := greatest(ceil(high / unit) * unit, low + unit);
END
$$;

-- A number beside the axis of values, which spans so much.
CREATE FUNCTION _plot_label(value float8, span float8) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN span BETWEEN 1e-4 AND 1e6 AND abs(value) < 1e9
                THEN round(value::numeric, greatest(0, 2 - floor(round(log(span)::numeric, 3))::int))::text
                ELSE trim(to_char(value, '9.99EEEE')) END
$$;

CREATE FUNCTION _plot_title(training name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s: %s, step %s of %s, %s', t.name, t.method, t.step, t.steps, t.state)
    FROM @extschema@.training t WHERE t.name = _plot_title.training
$$;

-- What a mark stands for: of a step's own answers, and of held-out rows.
CREATE FUNCTION _plot_legend(training name, OUT value text, OUT heldout text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN t.method = 'sft' AND m = 'reward' THEN 'steps have none' ELSE m || ' of a step' END,
           CASE m WHEN 'loss' THEN 'held-out rows' ELSE 'held-out rows, with error' END
    FROM @extschema@._plot_measure(training) m, @extschema@.training t WHERE t.name = _plot_legend.training
$$;

-- ---- as text ----

-- Characters that the client can show: of held-out rows, a step, an error, and what is between two steps; then of the
-- axes: a line down, one with a mark, the corner, a line, and one with a mark.
CREATE FUNCTION _plot_marks() RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN getdatabaseencoding() = 'UTF8' AND current_setting('client_encoding') IN ('UTF8', 'SQL_ASCII')
                THEN ARRAY[chr(9670), chr(8226), chr(9474), chr(183),
                           chr(9474), chr(9508), chr(9492), chr(9472), chr(9524)]
                ELSE ARRAY['#', 'o', '|', '.', '|', '+', '+', '-', '+'] END
$$;

-- The marks of a plot of so many columns and lines, by the order of _plot_marks(); y is 0 at the bottom. Several at one
-- place: the first in that order is to be seen.
CREATE FUNCTION _plot_cells(training name, columns int, lines int)
RETURNS TABLE (x int, y int, mark int)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH point AS MATERIALIZED (
        SELECT p.step::float8 / s.last_step * (columns - 1) AS x, (p.value - s.low) / (s.high - s.low) * (lines - 1) AS y,
               (p.heldout - s.low) / (s.high - s.low) * (lines - 1) AS heldout,
               coalesce(p.error, 0) / (s.high - s.low) * (lines - 1) AS error
        FROM @extschema@._plot_points(training) p, @extschema@._plot_span(training) s),
    column_of AS (
        SELECT round(p.x)::int AS x, avg(p.y) AS y, avg(p.heldout) AS heldout,
               avg(p.heldout) - avg(p.error) AS bottom, avg(p.heldout) + avg(p.error) AS top
        FROM point p GROUP BY round(p.x)),
    line AS (
        SELECT c.x, c.y, lead(c.x) OVER (ORDER BY c.x) AS next_x, lead(c.y) OVER (ORDER BY c.x) AS next_y
        FROM column_of c WHERE c.y IS NOT NULL),
    cell AS (
        SELECT c.x, c.heldout AS y, 1 AS mark FROM column_of c
        UNION ALL
        SELECT l.x, l.y, 2 FROM line l
        UNION ALL
        SELECT c.x, i, 3
        FROM column_of c, generate_series(greatest(round(c.bottom)::int, 0), least(round(c.top)::int, lines - 1)) i
        WHERE c.top > c.bottom
        UNION ALL
        SELECT i, l.y + (l.next_y - l.y) * (i - l.x) / (l.next_x - l.x), 4
        FROM line l, generate_series(l.x + 1, l.next_x - 1) i)
    SELECT c.x, round(c.y)::int, min(c.mark) FROM cell c WHERE c.y IS NOT NULL GROUP BY c.x, round(c.y)::int
$$;

-- The axis of steps: their numbers, the first, the middle and the last, below.
CREATE FUNCTION _plot_steps(last_step int, columns int) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN last_step < 2 THEN '0' || lpad(last_step::text, columns - 1)
                ELSE '0' || lpad((last_step / 2)::text, (columns - 1) * (last_step / 2) / last_step)
                     || lpad(last_step::text, columns - 1 - (columns - 1) * (last_step / 2) / last_step) END
$$;

CREATE FUNCTION _plot_text(training name, width int, height int) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    marks text[] := @extschema@._plot_marks();
    span record := @extschema@._plot_span(training);
    legend record := @extschema@._plot_legend(training);
    lines int := height - 4;
    parts int := CASE WHEN height - 4 < 9 THEN 2 ELSE 4 END;
    labels text[];
    margin int;
BEGIN
    -- of each line, from the lowest on
    SELECT array_agg((SELECT @extschema@._plot_label(span.low + (span.high - span.low) * i / parts, span.high - span.low)
                      FROM generate_series(0, parts) i WHERE round(i * (lines - 1)::numeric / parts) = y) ORDER BY y)
    INTO labels FROM generate_series(0, lines - 1) y;
    SELECT max(length(l)) INTO margin FROM unnest(labels) l;
    RETURN NEXT left(@extschema@._plot_title(training), width);
    RETURN QUERY
        SELECT rtrim(lpad(coalesce(labels[y + 1], ''), margin) || ' '
                     || CASE WHEN labels[y + 1] IS NULL THEN marks[5] ELSE marks[6] END
                     || string_agg(coalesce(marks[c.mark], ' '), '' ORDER BY x))
        FROM generate_series(0, lines - 1) y CROSS JOIN generate_series(0, width - margin - 3) x
        LEFT JOIN @extschema@._plot_cells(training, width - margin - 2, lines) c USING (x, y)
        GROUP BY y ORDER BY y DESC;
    RETURN NEXT repeat(' ', margin + 1) || marks[7] || repeat(marks[8], width - margin - 2);
    RETURN NEXT repeat(' ', margin + 2) || @extschema@._plot_steps(span.last_step, width - margin - 2);
    RETURN NEXT left(format('%s%s %s   %s %s', repeat(' ', margin + 2), marks[2], legend.value, marks[1], legend.heldout),
                     width);
END
$$;

-- ---- as SVG ----

-- A text inside of XML, which has no control characters.
CREATE FUNCTION _plot_escape(t text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT replace(replace(replace(replace(replace(regexp_replace(t, '[\x01-\x1f\x7f]', ' ', 'g'),
           '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;

-- The parts of a picture, each with the tag that closes it; coordinates in tenths of a pixel.
CREATE FUNCTION _plot_shapes(training name, width int, height int) RETURNS TABLE (layer int, x numeric, shape text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH frame AS (
        SELECT s.*, 60 AS l, width - 20 AS r, 40 AS t, height - 60 AS b FROM @extschema@._plot_span(training) s),
    point AS (
        SELECT round((l + (r - l) * p.step::float8 / last_step)::numeric, 1) AS x,
               round((b - (b - t) * (p.value - low) / (high - low))::numeric, 1) AS y,
               round((b - (b - t) * (p.heldout - low) / (high - low))::numeric, 1) AS heldout,
               round((b - (b - t) * greatest((p.heldout - p.error - low) / (high - low), 0))::numeric, 1) AS bottom,
               round((b - (b - t) * least((p.heldout + p.error - low) / (high - low), 1))::numeric, 1) AS top, p.error
        FROM @extschema@._plot_points(training) p, frame)
    SELECT 1, i, format('<path class="g" d="M%s %sH%s"/><text x="%s" y="%s" text-anchor="end">%s</text>', l, y, r, l - 8, y + 4,
                        @extschema@._plot_label(low + (high - low) * i / 4, high - low))
    FROM frame, generate_series(0, 4) i, LATERAL (SELECT round(b - (b - t) * i / 4.0, 1) AS y) v
    UNION ALL
    SELECT 2, i, format('<text x="%s" y="%s" text-anchor="middle">%s</text>', round(l + (r - l) * i::numeric / last_step, 1),
                        b + 18, i)
    FROM frame, LATERAL (SELECT DISTINCT v FROM unnest(ARRAY[0, last_step / 2, last_step]) v) s(i)
    UNION ALL
    SELECT 3, 0, format('<polyline class="v" points="%s"/>', string_agg(x || ',' || y, ' ' ORDER BY x))
    FROM point WHERE y IS NOT NULL HAVING count(*) > 0
    UNION ALL
    SELECT 4, x, format('<circle class="v" cx="%s" cy="%s" r="2"/>', x, y) FROM point WHERE y IS NOT NULL
    UNION ALL
    SELECT 5, x, format('<path class="h" d="M%s %sV%s"/>', x, bottom, top) FROM point WHERE error > 0
    UNION ALL
    SELECT 6, 0, format('<polyline class="h" points="%s"/>', string_agg(x || ',' || heldout, ' ' ORDER BY x))
    FROM point WHERE heldout IS NOT NULL HAVING count(*) > 0
    UNION ALL
    SELECT 7, x, format('<circle class="h" cx="%s" cy="%s" r="4"/>', x, heldout) FROM point WHERE heldout IS NOT NULL
$$;

CREATE FUNCTION _plot_svg(training name, width int, height int) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %1$s %2$s" width="%1$s" height="%2$s" role="img">'
                  '<title>%3$s</title><style>text{font:12px sans-serif;fill:#333}.g{stroke:#ddd}.v{stroke:#2a6fb5;fill:none}'
                  '.h{stroke:#c4501b;fill:none}circle.v{fill:#2a6fb5}circle.h{fill:#c4501b}</style>'
                  '<rect width="%1$s" height="%2$s" fill="#fff"/><text x="60" y="22" font-weight="bold">%3$s</text>%4$s'
                  '<circle class="v" cx="66" cy="%5$s" r="2"/><text x="76" y="%6$s">%7$s</text>'
                  '<circle class="h" cx="266" cy="%5$s" r="4"/><text x="276" y="%6$s">%8$s</text></svg>',
                  width, height, @extschema@._plot_escape(@extschema@._plot_title(training)),
                  (SELECT string_agg(s.shape, '' ORDER BY s.layer, s.x) FROM @extschema@._plot_shapes(training, width, height) s),
                  height - 18, height - 14, @extschema@._plot_escape(l.value), @extschema@._plot_escape(l.heldout))
    FROM @extschema@._plot_legend(training) l
$$;

-- ---- both ----

CREATE FUNCTION _plot_check(name text, value int, low int, high int, unit text) RETURNS int
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value NOT BETWEEN low AND high THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('minimax_m1: %s is out of range', name),
            DETAIL = format('It is %s; it must be between %s and %s %s.', value, low, high, unit);
    END IF;
    RETURN value;
END
$$;

-- A row a line, as EXPLAIN has them; an SVG is one row. Width and height are characters, or pixels.
CREATE FUNCTION plot_training(name name, width int DEFAULT NULL, height int DEFAULT NULL, format text DEFAULT 'text')
RETURNS SETOF text
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL THEN
        RETURN;
    ELSIF @extschema@._plot_title(name) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('minimax_m1: training "%s" does not exist', name),
            HINT = 'The view minimax_m1.training shows those that you may see.';
    ELSIF coalesce(format, 'text') = 'text' THEN
        RETURN QUERY SELECT @extschema@._plot_text(name,
            @extschema@._plot_check('width', coalesce(width, 72), 40, 400, 'characters'),
            @extschema@._plot_check('height', coalesce(height, 18), 8, 100, 'lines'));
    ELSIF format = 'svg' THEN
        RETURN QUERY SELECT @extschema@._plot_svg(name,
            @extschema@._plot_check('width', coalesce(width, 640), 480, 4000, 'pixels'),
            @extschema@._plot_check('height', coalesce(height, 320), 160, 4000, 'pixels'));
    ELSE
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('minimax_m1: "%s" is no format of a plot', format),
            HINT = 'Use text or svg.';
    END IF;
END
$$;

COMMENT ON FUNCTION plot_training IS 'the curve of a training: reward by step, and of held-out rows; a row a line, or an svg';
