/*
 * query.c
 *	  One query of somebody else's: of examples, or that a model has written. Who
 *	  calls this has an SPI connection, and runs as the role that the query is of.
 */
#include "pg/learning/query.h"

#include "nodes/parsenodes.h"
#include "utils/plancache.h"

static bool
is_one_query(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	List	   *queries = list_length(sources) == 1 ? ((CachedPlanSource *) linitial(sources))->query_list : NIL;

	const Query *query = list_length(queries) == 1 ? linitial_node(Query, queries) : NULL;

	return query != NULL && query->commandType == CMD_SELECT && !query->hasModifyingCTE && query->rowMarks == NIL;
}

Portal
m1pg_open_query(const char *sql)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);

	if (plan == NULL || !is_one_query(plan))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("minimax_m1: \"%.100s\" is not one query", sql),
				 errdetail("It must be a single SELECT that changes nothing.")));
	return SPI_cursor_open(NULL, plan, NULL, NULL, true);
}
