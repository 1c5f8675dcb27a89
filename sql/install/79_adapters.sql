/* sql/install/79_adapters.sql */

-- ---- Adapters: small differences to the model's weights, as rows ----
--
-- What PEFT keeps in a folder is here: adapter_config.json as text, adapter_model.safetensors in pieces. So transactions,
-- dumps, replication and rights hold for adapters. A name has versions, which never change.

CREATE TABLE adapter_version (
    id serial PRIMARY KEY,
    name name NOT NULL,
    version int NOT NULL,
    owner regrole NOT NULL,
    base_digest text,                   -- of the model that it was trained on; NULL = its maker did not say
    digest text NOT NULL,               -- of config and pieces: equal adapters have equal ones
    rank int NOT NULL,
    bytes bigint NOT NULL,
    config json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    training name,                      -- that it was learnt by, which may be forgotten by now; NULL, as the rest: by none
    step int,
    heldout_before float8,              -- what held-out rows got before the first step, and with this version
    heldout_after float8,
    heldout_measure text CHECK (heldout_measure IN ('reward', 'loss')),
    UNIQUE (name, version));

CREATE TABLE adapter_piece (
    adapter_id int,
    piece int,
    data bytea NOT NULL,
    PRIMARY KEY (adapter_id, piece));

-- Weights do not become smaller.
ALTER TABLE adapter_piece ALTER COLUMN data SET STORAGE EXTERNAL;

-- Who may use an adapter beside its owner, in all versions.
CREATE TABLE adapter_grant (
    name name,
    role regrole,
    PRIMARY KEY (name, role));

-- Raises an error unless the caller owns the adapter of this name.
CREATE FUNCTION _adapter_owned(caller oid, adapter name) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.adapter_version v
                   WHERE v.name = adapter AND pg_has_role(caller, v.owner::oid, 'USAGE')) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('minimax_m1: adapter "%s" does not exist', adapter),
            HINT = 'The view minimax_m1.adapter shows those that you may use; only its owner may do this.';
    END IF;
END
$$;

-- Raises an error if the adapter of this name, where there is one, is another role's.
CREATE FUNCTION _adapter_free(maker oid, adapter name) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM @extschema@.adapter_version v WHERE v.name = adapter AND NOT pg_has_role(maker, v.owner::oid, 'USAGE')) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('minimax_m1: the name "%s" is taken by another role''s adapter', adapter),
            HINT = 'Take another name.';
    END IF;
END
$$;

-- Files of the server are for superusers.
CREATE FUNCTION _adapter_of_files(caller oid, what text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE oid = caller) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('minimax_m1: permission denied to %s an adapter', what),
            DETAIL = 'Only superusers read and write files of the server.';
    END IF;
END
$$;

-- What the header of a safetensors file says of itself: eight bytes of its length, then JSON.
CREATE FUNCTION _safetensors_header(path text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prefix bytea := pg_read_binary_file(path, 0, 8);
    length bigint := 0;
BEGIN
    IF length(prefix) = 8 THEN
        FOR i IN REVERSE 7 .. 0 LOOP
            -- more than 2^55 bytes are none
            EXIT WHEN i = 7 AND get_byte(prefix, i) > 0;
            length := length * 256 + get_byte(prefix, i);
        END LOOP;
    END IF;
    IF length NOT BETWEEN 2 AND 100000000 OR length + 8 > (pg_stat_file(path)).size THEN
        RAISE EXCEPTION 'no header';
    END IF;
    RETURN convert_from(pg_read_binary_file(path, 8, length), 'UTF8')::jsonb;
EXCEPTION WHEN raise_exception OR invalid_text_representation OR character_not_in_repertoire OR untranslatable_character THEN
    RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
        MESSAGE = format('minimax_m1: "%s" is not a safetensors file', path);
END
$$;

-- The config that PEFT writes, once it is one.
CREATE FUNCTION _adapter_config(path text) RETURNS json
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    config json;
BEGIN
    config := convert_from(pg_read_binary_file(path), 'UTF8');
    IF json_typeof(config) = 'object' AND config->>'peft_type' = 'LORA' AND config->>'r' ~ '^[0-9]{1,4}$' THEN
        RETURN config;
    END IF;
    RAISE EXCEPTION 'no config';
EXCEPTION WHEN raise_exception OR invalid_text_representation OR character_not_in_repertoire OR untranslatable_character THEN
    RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
        MESSAGE = format('minimax_m1: "%s" is not the config of an adapter', path),
        DETAIL = 'It must be a JSON object with peft_type LORA and a rank r.';
END
$$;

-- The next version of a name: without pieces yet, and so without a digest. Of a name that there is already, it must be made by
-- a member of whom the name belongs to, and belongs to that, too.
CREATE FUNCTION _add_adapter(
    maker oid, adapter name, base_digest text, bytes bigint, config json, OUT adapter_id int, OUT next_version int)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    belongs_to regrole;
BEGIN
    -- two that make versions of the same name wait for each other
    LOCK TABLE @extschema@.adapter_version IN SHARE ROW EXCLUSIVE MODE;
    SELECT v.version, v.owner INTO next_version, belongs_to
    FROM @extschema@.adapter_version v WHERE v.name = adapter ORDER BY v.version DESC LIMIT 1;
    PERFORM @extschema@._adapter_free(maker, adapter);
    INSERT INTO @extschema@.adapter_version AS v (name, version, owner, base_digest, digest, rank, bytes, config)
    VALUES (adapter, coalesce(next_version, 0) + 1, coalesce(belongs_to, maker::regrole), base_digest, '', (config->>'r')::int, bytes, config)
    RETURNING v.id, v.version INTO adapter_id, next_version;
END
$$;

CREATE FUNCTION _import_adapter(caller oid, name name, folder text) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    piece_bytes constant int := 1048576;
    path text := folder || '/adapter_model.safetensors';
    config json;
    header jsonb;
    size bigint;
    next_version int;
    adapter int;
BEGIN
    PERFORM @extschema@._adapter_of_files(caller, 'import');
    IF name IS NULL OR folder IS NULL OR name IN ('', 'base') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'minimax_m1: name or folder is NULL, or no name for an adapter',
            DETAIL = 'base is the name of the model without one.';
    END IF;
    config := @extschema@._adapter_config(folder || '/adapter_config.json');
    header := @extschema@._safetensors_header(path);
    size := (pg_stat_file(path)).size;
    SELECT a.* INTO adapter, next_version
    FROM @extschema@._add_adapter(caller, name, header #>> '{__metadata__,base_digest}', size, config) a;
    INSERT INTO @extschema@.adapter_piece (adapter_id, piece, data)
    SELECT adapter, p, pg_read_binary_file(path, p * piece_bytes::bigint, piece_bytes)
    FROM generate_series(0, ((size - 1) / piece_bytes)::int) p;
    IF (SELECT sum(length(p.data)) FROM @extschema@.adapter_piece p WHERE p.adapter_id = adapter) <> size THEN
        RAISE EXCEPTION USING ERRCODE = 'io_error',
            MESSAGE = format('minimax_m1: "%s" changed while it was read', path);
    END IF;
    UPDATE @extschema@.adapter_version v SET digest = @extschema@._adapter_digest(adapter) WHERE v.id = adapter;
    RETURN next_version;
END
$$;

-- A hash of hashes, so that no more than a piece is in memory.
CREATE FUNCTION _adapter_digest(adapter int) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(sha256(sha256(convert_to(v.config::text, 'UTF8'))
                         || (SELECT string_agg(sha256(p.data), '' ORDER BY p.piece)
                             FROM @extschema@.adapter_piece p WHERE p.adapter_id = v.id)), 'hex')
    FROM @extschema@.adapter_version v WHERE v.id = adapter
$$;

CREATE FUNCTION import_adapter(name name, folder text) RETURNS int
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION import_adapter IS 'keeps an adapter of a folder in PEFT''s format, as a new version of the name; returns that';

CREATE FUNCTION _export_adapter(caller oid, name name, folder text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v @extschema@.adapter_version;
    lo oid;
    place bigint := 0;
    p record;
BEGIN
    PERFORM @extschema@._adapter_of_files(caller, 'export');
    SELECT a.* INTO v FROM @extschema@.adapter_version a WHERE a.name = _export_adapter.name ORDER BY a.version DESC LIMIT 1;
    IF v.id IS NULL THEN
        PERFORM @extschema@._adapter_owned(caller, name);
    ELSIF @extschema@._adapter_digest(v.id) <> v.digest THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
            MESSAGE = format('minimax_m1: adapter "%s" is not what was stored', name);
    END IF;
    lo := lo_from_bytea(0, convert_to(v.config::text, 'UTF8'));
    PERFORM lo_export(lo, folder || '/adapter_config.json'), lo_unlink(lo);
    lo := lo_create(0);
    FOR p IN SELECT * FROM @extschema@.adapter_piece t WHERE t.adapter_id = v.id ORDER BY t.piece LOOP
        PERFORM lo_put(lo, place, p.data);
        place := place + length(p.data);
    END LOOP;
    PERFORM lo_export(lo, folder || '/adapter_model.safetensors'), lo_unlink(lo);
END
$$;

CREATE FUNCTION export_adapter(name name, folder text) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C;

COMMENT ON FUNCTION export_adapter IS 'writes the latest version of an adapter into a folder that is there, in PEFT''s format';

CREATE FUNCTION _grant_adapter(caller oid, name name, role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@._adapter_owned(caller, name), @extschema@._check_role(role);
    INSERT INTO @extschema@.adapter_grant VALUES (name, role) ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION grant_adapter(name name, role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION grant_adapter IS 'allows a role to use an adapter of one''s own, which may repeat what it was trained on';

CREATE FUNCTION _revoke_adapter(caller oid, name name, role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT @extschema@._adapter_owned(caller, name);
    DELETE FROM @extschema@.adapter_grant g WHERE g.name = $2 AND g.role = $3;
$$;

CREATE FUNCTION revoke_adapter(name name, role regrole) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION revoke_adapter IS 'takes back what grant_adapter() has given';

CREATE FUNCTION _drop_adapter(caller oid, name name) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT @extschema@._adapter_owned(caller, name);
    DELETE FROM @extschema@.adapter_piece p USING @extschema@.adapter_version v WHERE v.id = p.adapter_id AND v.name = $2;
    DELETE FROM @extschema@.adapter_grant g WHERE g.name = $2;
    DELETE FROM @extschema@.adapter_version v WHERE v.name = $2;
$$;

CREATE FUNCTION drop_adapter(name name) RETURNS void
AS 'MODULE_PATHNAME', 'm1pg_gate' LANGUAGE C STRICT;

COMMENT ON FUNCTION drop_adapter IS 'forgets an adapter in all versions';
