/*
 * agent_runs.h - runs of agents that were submitted (agent_runs.c).
 */
#ifndef M1PG_AGENT_RUNS_H
#define M1PG_AGENT_RUNS_H

#include "pg/m1pg.h"

#include "datatype/timestamp.h"

/* What the process of a run is told, in its bgw_extra. */
typedef struct M1AgentRun
{
	int64		id;
	Oid			owner;
	TimestampTz until;			/* its process ends by then, whatever it is at */
} M1AgentRun;

/*
 * For the job runner, in a turn: starts the run that is next, unless one is under way. Returns when to look again; 0 =
 * there is none.
 */
extern TimestampTz m1pg_agent_runs_look(void);

#endif							/* M1PG_AGENT_RUNS_H */
