/* sql/install/40_limits.sql */

-- ---- Limits: what a role may use, what it has used, and what that costs ----
--
-- Quotas are settings of roles, and usage is counted by the worker for the whole server. Prices are a table of this
-- database.

-- Raises an error unless there is such a role: a regrole may be any number.
CREATE FUNCTION _check_role(role oid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE oid = role) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'minimax_m1: there is no such role';
    END IF;
END
$$;

-- ---- quotas ----

-- A quota is a setting of the role; the owner of the function is a superuser, who may set it.
CREATE FUNCTION set_quota(role regrole, tokens_per_hour bigint DEFAULT NULL, max_concurrent int DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@._check_role(role);
    IF tokens_per_hour NOT BETWEEN 0 AND 999999999999999999 THEN
        RAISE EXCEPTION 'minimax_m1: tokens_per_hour is out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s; it must be at least 0, or NULL for no limit.', tokens_per_hour);
    END IF;
    IF max_concurrent < 0 THEN
        RAISE EXCEPTION 'minimax_m1: max_concurrent is out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s; it must be at least 0, or NULL for no limit.', max_concurrent);
    END IF;
    EXECUTE CASE WHEN tokens_per_hour IS NULL
        THEN format('ALTER ROLE %s RESET minimax_m1.quota_tokens_per_hour', role)
        ELSE format('ALTER ROLE %s SET minimax_m1.quota_tokens_per_hour = %L', role, tokens_per_hour) END;
    EXECUTE CASE WHEN max_concurrent IS NULL
        THEN format('ALTER ROLE %s RESET minimax_m1.quota_max_concurrent', role)
        ELSE format('ALTER ROLE %s SET minimax_m1.quota_max_concurrent = %L', role, max_concurrent) END;
END
$$;

COMMENT ON FUNCTION set_quota IS 'limits what a role may use; NULL means no limit';

-- What a role has used and holds; NULLs when the caller may not know.
CREATE FUNCTION role_use(
    role oid,
    OUT used_last_hour bigint,
    OUT reserved bigint,
    OUT requests int)
RETURNS record
AS 'MODULE_PATHNAME', 'm1pg_role_use'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

CREATE VIEW quotas AS
SELECT pg_catalog.pg_get_userbyid(s.setrole) AS role, q.tokens_per_hour, q.max_concurrent,
       u.used_last_hour, u.reserved, u.requests
FROM pg_catalog.pg_db_role_setting s
CROSS JOIN LATERAL (
    SELECT max(NULLIF(o.option_value, '')::bigint)
               FILTER (WHERE o.option_name = 'minimax_m1.quota_tokens_per_hour') AS tokens_per_hour,
           max(NULLIF(o.option_value, '-1')::int)
               FILTER (WHERE o.option_name = 'minimax_m1.quota_max_concurrent') AS max_concurrent
    FROM pg_catalog.pg_options_to_table(s.setconfig) o
    WHERE o.option_name IN ('minimax_m1.quota_tokens_per_hour', 'minimax_m1.quota_max_concurrent')) q
CROSS JOIN LATERAL @extschema@.role_use(s.setrole) u
WHERE s.setdatabase = 0
  AND (q.tokens_per_hour IS NOT NULL OR q.max_concurrent IS NOT NULL)
  AND u.requests IS NOT NULL;

COMMENT ON VIEW quotas IS 'quotas of roles, and how much of them is used';

-- ---- usage ----

CREATE FUNCTION usage_rows(
    OUT role oid,
    OUT month date,
    OUT function text,
    OUT context_tier int,
    OUT requests bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT cancelled bigint,
    OUT prompt_tokens bigint,
    OUT cached_tokens bigint,
    OUT reasoning_tokens bigint,
    OUT completion_tokens bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'm1pg_usage_rows'
LANGUAGE C VOLATILE PARALLEL SAFE;

CREATE VIEW usage AS
SELECT pg_catalog.pg_get_userbyid(u.role) AS role, u.month, u.function, u.context_tier, u.requests, u.completed,
       u.failed, u.cancelled, u.prompt_tokens, u.cached_tokens, u.reasoning_tokens, u.completion_tokens
FROM @extschema@.usage_rows() u;

COMMENT ON VIEW usage IS 'what each role has used the model for, by month (UTC)';

CREATE FUNCTION usage_reset(before date DEFAULT NULL)
RETURNS int
AS 'MODULE_PATHNAME', 'm1pg_usage_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;

COMMENT ON FUNCTION usage_reset IS 'forgets the usage of the months before a date, or all; returns the number of rows';

-- ---- prices ----

CREATE TABLE prices (
    since date NOT NULL,
    min_context int NOT NULL DEFAULT 0 CHECK (min_context >= 0),
    input numeric NOT NULL CHECK (input >= 0),
    output numeric NOT NULL CHECK (output >= 0),
    cached_input numeric CHECK (cached_input >= 0),
    PRIMARY KEY (since, min_context));

COMMENT ON TABLE prices IS 'prices of a million tokens, from a month on and from a length of the prompt on';

CREATE FUNCTION set_price(
    input numeric,
    output numeric,
    cached_input numeric DEFAULT NULL,
    min_context int DEFAULT 0,
    since date DEFAULT pg_catalog.date_trunc('month', pg_catalog.timezone('UTC', pg_catalog.now())))
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF min_context <> 0 AND min_context::text <> ALL
        (string_to_array(replace(current_setting('minimax_m1.context_tiers'), ' ', ''), ',')) THEN
        RAISE EXCEPTION 'minimax_m1: usage is not counted apart for prompts of % tokens and more', min_context
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Add the number to minimax_m1.context_tiers and reload the configuration.';
    END IF;
    IF since <> date_trunc('month', since) THEN
        RAISE EXCEPTION 'minimax_m1: a price holds from the first day of a month on'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The date is %s.', since);
    END IF;
    INSERT INTO @extschema@.prices AS p (since, min_context, input, output, cached_input)
    VALUES (since, min_context, input, output, cached_input)
    ON CONFLICT ON CONSTRAINT prices_pkey DO UPDATE
    SET input = excluded.input, output = excluded.output, cached_input = excluded.cached_input;
END
$$;

COMMENT ON FUNCTION set_price IS 'sets what a million tokens cost';

-- The prices of the latest month up to that of the usage, and of these the one for the length of the prompt.
CREATE VIEW bill AS
SELECT u.role, u.month, u.function, u.context_tier, u.requests, u.prompt_tokens, u.cached_tokens,
       u.completion_tokens,
       ((u.prompt_tokens - u.cached_tokens) * p.input
        + u.cached_tokens * COALESCE(p.cached_input, p.input)
        + u.completion_tokens * p.output) * 0.000001 AS amount
FROM @extschema@.usage u
LEFT JOIN LATERAL (
    SELECT x.input, x.cached_input, x.output
    FROM @extschema@.prices x
    WHERE x.since = (SELECT max(y.since) FROM @extschema@.prices y WHERE y.since <= u.month)
      AND x.min_context <= u.context_tier
    ORDER BY x.min_context DESC
    LIMIT 1) p ON true;

COMMENT ON VIEW bill IS 'usage times prices';
