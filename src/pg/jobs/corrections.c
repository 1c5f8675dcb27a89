/*
 * corrections.c
 *	  What somebody has changed by hand of what an annotator had written. The
 *	  triggers note which row and what was wrong; what is right is in the row, as
 *	  long as that is there and gives the same prompt.
 */
#include "pg/jobs/corrections.h"
#include "pg/client/texts.h"
#include "pg/jobs/annotator.h"
#include "pg/jobs/annotator_rows.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/rows.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_corrections);

/* ---- noted by the triggers ---- */

/* While the row waits for the model, or its turn has failed, what it holds is the answer to something else. */
#define NOTE_SQL \
	"INSERT INTO minimax_m1.correction AS c (annotator_id, key, wrong, prompt_hash) SELECT $1, $2, $3, $4 " \
	"WHERE NOT EXISTS (SELECT FROM minimax_m1.job WHERE annotator_id = $1 AND key = $2) " \
	"ON CONFLICT (annotator_id, key) DO UPDATE SET prompt_hash = excluded.prompt_hash, " \
	"wrong = CASE WHEN c.prompt_hash = excluded.prompt_hash THEN c.wrong ELSE excluded.wrong END"

void
m1pg_note_correction(int annotator_id, ArrayType *key, const char *prompt, char *wrong)
{
	Oid			types[4] = {INT4OID, TEXTARRAYOID, TEXTOID, BYTEAOID};
	Datum		values[4];
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);

	values[0] = Int32GetDatum(annotator_id);
	values[1] = PointerGetDatum(key);
	values[2] = CStringGetTextDatum(wrong);
	values[3] = PointerGetDatum(m1pg_hash(prompt));
	(void) m1pg_query(NOTE_SQL, 4, types, values, NULL, false);
	m1pg_unbecome(&guard);
}

void
m1pg_forget_correction(int annotator_id, ArrayType *key)
{
	Oid			types[2] = {INT4OID, TEXTARRAYOID};
	Datum		values[2] = {Int32GetDatum(annotator_id), PointerGetDatum(key)};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);

	(void) m1pg_query("DELETE FROM minimax_m1.correction WHERE annotator_id = $1 AND key = $2",
					  2, types, values, NULL, false);
	m1pg_unbecome(&guard);
}

/* ---- corrections(annotator) ---- */

typedef struct Correction
{
	char	  **key;
	char	   *wrong;
	bytea	   *prompt_hash;
} Correction;

static M1Annotator *
annotator_of_caller(const char *name)
{
	M1Annotator *a = m1pg_annotator_load(name, 0, CurrentMemoryContext);

	if (a == NULL || !has_privs_of_role(GetUserId(), a->owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("minimax_m1: annotator \"%s\" does not exist", name),
				 errhint("The view minimax_m1.annotators shows those that you may change.")));
	return a;
}

static Correction *
read_noted(const M1Annotator *a, int *n)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(a->id)};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	Correction *noted;

	*n = (int) m1pg_query("SELECT key, wrong, prompt_hash FROM minimax_m1.correction WHERE annotator_id = $1 "
						  "ORDER BY key",
						  1, types, values, NULL, true);
	noted = palloc(Max(*n, 1) * sizeof *noted);
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;
		int			n_keys;

		noted[i].key = m1pg_text_array(DatumGetArrayTypePCopy(m1pg_result(i, 1, &isnull)), &n_keys);
		noted[i].wrong = m1pg_result_text(CurrentMemoryContext, i, 2);
		noted[i].prompt_hash = DatumGetByteaPCopy(m1pg_result(i, 3, &isnull));
	}
	m1pg_unbecome(&guard);
	return noted;
}

static void
put_row(ReturnSetInfo *rsinfo, const M1Annotator *a, const char *prompt, const char *wrong, const char *right)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(prompt);
	values[1] = CStringGetTextDatum(wrong);
	values[2] = CStringGetTextDatum(right);
	values[3] = PointerGetDatum(m1pg_text_from_utf8(a->request.system));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A row that is gone, asks for something else, or holds what it held before, has no correction. */
static void
put_correction(ReturnSetInfo *rsinfo, const M1Annotator *a, const M1Rows *rows, const Correction *c)
{
	M1Row		row;

	if (m1pg_row_read(rows, c->key, false, &row) == M1_ROW_FOUND && row.prompt != NULL && row.target != NULL &&
		VARSIZE_ANY_EXHDR(c->prompt_hash) == M1PG_HASH_SIZE &&
		memcmp(VARDATA_ANY(c->prompt_hash), m1pg_hash_prompt(row.prompt), M1PG_HASH_SIZE) == 0 &&
		strcmp(row.target, c->wrong) != 0)
		put_row(rsinfo, a, row.prompt, c->wrong, row.target);
}

/* corrections(annotator) */
Datum
m1pg_corrections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	M1Annotator *a;
	M1Rows	   *rows;
	Correction *noted;
	int			n;

	m1pg_start_rows(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	SPI_connect();
	a = annotator_of_caller(NameStr(*PG_GETARG_NAME(0)));
	rows = m1pg_rows_open(a, CurrentMemoryContext);
	noted = read_noted(a, &n);
	for (int i = 0; i < n; i++)
		put_correction(rsinfo, a, rows, &noted[i]);
	SPI_finish();
	return (Datum) 0;
}
