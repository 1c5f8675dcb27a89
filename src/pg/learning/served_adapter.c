/*
 * served_adapter.c
 *	  Gives the engine adapters that are rows, when somebody wants to use them. The
 *	  engine knows each by its digest, and never changes it: a new version is another
 *	  one, and who began with the old goes on with it. It keeps them as long as it
 *	  has room, so requests only name one, and it is given when the engine says that
 *	  it has none of the name.
 *
 *	  A session remembers which rows it has found, by their digests.
 */
#include "pg/learning/served_adapter.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/jobs/guard.h"
#include "pg/learning/learn_calls.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define DIGEST_SIZE 65			/* with its end */

/* ---- what was found ---- */

typedef struct Version
{
	int			id;
	int			version;
	char		name[NAMEDATALEN];
	char		digest[DIGEST_SIZE];
} Version;

static List *found = NIL;		/* of Version, one for each digest, in TopMemoryContext */

static Version *
find_digest(m1_slice digest)
{
	ListCell   *cell;

	foreach(cell, found)
	{
		Version    *v = lfirst(cell);

		if (strlen(v->digest) == digest.len && memcmp(v->digest, digest.data, digest.len) == 0)
			return v;
	}
	return NULL;
}

/* Equal adapters have one digest: the last one to be found stands for all. */
static void
note_found(const Version *v)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Version    *known = find_digest(m1_slice_of(v->digest));

	if (known == NULL)
		found = lappend(found, known = palloc(sizeof *known));
	*known = *v;
	MemoryContextSwitchTo(old);
}

/* ---- messages ---- */

static const M1LearnCaller session = {.function = "serve_adapter"};

static void
put(const char *under, uint64 total, uint64 offset, m1_slice bytes)
{
	m1w_bytes	m = {.name = m1_slice_of(under), .total = total, .offset = offset, .bytes = bytes};
	m1_error	error;

	if (!m1pg_learn_put(&session, &m, &error))
		m1pg_report(&error);
}

/* Another session may have been faster, which is as good. false: there are no bytes of it. */
static bool
serve(const char *digest)
{
	m1_slice	name = m1_slice_of(digest);
	m1_error	error;

	if (m1pg_learn_serve(&session, name, name, &error) || error.code == M1_E_EXISTS)
		return true;
	if (error.code != M1_E_NOT_FOUND)
		m1pg_report(&error);
	return false;
}

/* ---- rows ---- */

#define FIND_SQL \
	"SELECT v.id, v.version, v.digest FROM minimax_m1.adapter_version v " \
	"WHERE v.name = $1 AND $3 IN (0, v.id) AND " \
	"(pg_has_role($2, v.owner::oid, 'USAGE') OR EXISTS (SELECT FROM minimax_m1.adapter_grant g " \
	"WHERE g.name = v.name AND pg_has_role($2, g.role::oid, 'USAGE'))) ORDER BY v.version DESC LIMIT 1"

static void
raise_missing(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("minimax_m1: adapter \"%s\" does not exist", name),
			 errhint("The view minimax_m1.adapter shows those that you may use.")));
}

#define LATEST 0

/* With SPI connected. */
static Version
find_version(const char *name, int id)
{
	Oid			types[3] = {NAMEOID, OIDOID, INT4OID};
	Datum		values[3] = {
		DirectFunctionCall1(namein, CStringGetDatum(name)), ObjectIdGetDatum(GetUserId()), Int32GetDatum(id)
	};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	Version		v = {0};
	bool		isnull;

	if (m1pg_query(FIND_SQL, 3, types, values, NULL, true) == 0)
		raise_missing(name);
	v.id = DatumGetInt32(m1pg_result(0, 1, &isnull));
	v.version = DatumGetInt32(m1pg_result(0, 2, &isnull));
	strlcpy(v.name, name, sizeof v.name);
	strlcpy(v.digest, m1pg_result_text(CurrentMemoryContext, 0, 3), sizeof v.digest);
	m1pg_unbecome(&guard);
	return v;
}

/* The config in UTF-8, and how many bytes the pieces have. It may have been dropped since it was found. */
static m1_slice
read_config(const Version *v, uint64 *bytes)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(v->id)};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	char	   *config;
	bool		isnull;

	if (m1pg_query("SELECT config::text, bytes FROM minimax_m1.adapter_version WHERE id = $1",
				   1, types, values, NULL, true) == 0)
		raise_missing(v->name);
	config = m1pg_result_text(CurrentMemoryContext, 0, 1);
	*bytes = (uint64) DatumGetInt64(m1pg_result(0, 2, &isnull));
	m1pg_unbecome(&guard);
	return m1pg_to_utf8(config, strlen(config));
}

/* NULL behind the last. */
static bytea *
read_piece(const Version *v, int piece)
{
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2] = {Int32GetDatum(v->id), Int32GetDatum(piece)};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	bytea	   *data = NULL;
	bool		isnull;

	if (m1pg_query("SELECT data FROM minimax_m1.adapter_piece WHERE adapter_id = $1 AND piece = $2",
				   2, types, values, NULL, true) > 0)
		data = DatumGetByteaPCopy(m1pg_result(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	m1pg_unbecome(&guard);
	return data;
}

/* ---- all of it ---- */

/* What comes before the numbers, in the form that the engine takes PEFT's two files in. */
static m1_slice
head_of(m1_slice config)
{
	static const char magic[] = "m1peft01";
	uint32		n = (uint32) config.len;
	Size		len = strlen(magic) + sizeof n + n;
	char	   *head = palloc(len);

	memcpy(head, magic, strlen(magic));
	memcpy(head + strlen(magic), &n, sizeof n);
	memcpy(head + strlen(magic) + sizeof n, config.data, n);
	return (m1_slice) {head, len};
}

static void
put_all(const Version *v)
{
	uint64		bytes;
	m1_slice	head = head_of(read_config(v, &bytes));
	uint64		total = head.len + bytes;
	uint64		offset = head.len;
	bytea	   *data;

	put(v->digest, total, 0, head);
	for (int piece = 0; (data = read_piece(v, piece)) != NULL; piece++)
	{
		put(v->digest, total, offset, (m1_slice) {VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)});
		offset += VARSIZE_ANY_EXHDR(data);
		pfree(data);
	}
}

/*
 * The server's other sessions, in whatever database, do not give the same meanwhile: they wait, and find it given. No
 * function of SQL takes such a lock, as it is of no database.
 */
static void
lock_giving(LOCKTAG *tag, const Version *v)
{
	SET_LOCKTAG_ADVISORY(*tag, InvalidOid, hash_bytes((const unsigned char *) v->digest, strlen(v->digest)), 0, 0);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
}

/* Served from bytes of its own name: what was put of it before, and not served, is there once at most. */
static void
give(const Version *v)
{
	LOCKTAG		tag;

	lock_giving(&tag, v);
	if (!serve(v->digest))
	{
		put_all(v);
		if (!serve(v->digest))
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("minimax_m1: the engine has not kept the adapter that it was given"),
					 errhint("Try again.")));
	}
	LockRelease(&tag, ExclusiveLock, false);
}

/* A server elsewhere has its own, and says so when it has none of the name. */
static bool
is_elsewhere(void)
{
	return m1pg_engine_url[0] != '\0';
}

/* *version: 0 = of a server elsewhere. `now`: it is there when this returns. */
static m1_slice
find(const char *name, int id, bool now, int *version)
{
	MemoryContext caller = CurrentMemoryContext;
	Version		v;

	m1pg_require_shared();
	*version = 0;
	if (is_elsewhere())
		return m1pg_to_utf8(pstrdup(name), strlen(name));
	SPI_connect();
	v = find_version(name, id);
	note_found(&v);
	if (now)
		give(&v);
	SPI_finish();
	*version = v.version;
	return m1_slice_of(MemoryContextStrdup(caller, v.digest));
}

m1_slice
m1pg_served_adapter_of(const char *name, int id)
{
	int			unused;

	return find(name, id, true, &unused);
}

/* ---- for requests ---- */

static m1_slice
find_latest(const char *name, int *version)
{
	return find(name, LATEST, false, version);
}

static void
check(const char *name)
{
	if (is_elsewhere())
		return;
	SPI_connect();
	(void) find_version(name, LATEST);
	SPI_finish();
}

static bool
give_again(m1_slice digest)
{
	const Version *v = find_digest(digest);

	if (v == NULL || is_elsewhere())
		return false;
	SPI_connect();
	give(v);
	SPI_finish();
	return true;
}

void
m1pg_use_adapters(void)
{
	static const M1Adapters adapters = {.find = find_latest, .check = check, .give = give_again};

	m1pg_adapters = &adapters;
}
