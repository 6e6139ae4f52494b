/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Where the extension's relations are in this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_CATALOG_H
#define JQ_CATALOG_H

#include "postgres.h"

/* Tables that are only looked at for foreign triggers. */
#define JQ_CATALOG_OTHERS 15

/*
 * Valid until the next time the caller could process invalidation messages:
 * fetch it again after waiting for a lock.
 */
typedef struct JqCatalog
{
	uint64		generation;		/* grows whenever anything below changes */
	Oid			extension;
	Oid			schema;
	char	   *schema_name;	/* quoted, for statement texts */
	Oid			owner;			/* of the tables */
	Oid			jobs_queue;
	Oid			jobs_queue_live;
	Oid			jobs_queue_live_pkey;
	Oid			jobs_queue_live_ready;	/* InvalidOid: somebody dropped it */
	Oid			jobs_queue_live_owner;	/* the same */
	Oid			jobs_queue_live_group;	/* the same */
	Oid			jobs_queue_done;
	Oid			jobs_queue_done_pkey;
	Oid			job_runs;
	Oid			job_types;
	Oid			cron_tasks;
	Oid			cron_tasks_pkey;
	Oid			http_endpoints;
	Oid			job_dependencies;
	Oid			job_dependencies_pkey;	/* or InvalidOid, as above */
	Oid			job_dependencies_depends_on;	/* the same */
	Oid			database_identity;
	Oid			worker_stops;
	Oid			job_circuits;
	Oid			others[JQ_CATALOG_OTHERS];
	Oid			foreign_trigger;	/* one that would run the code of somebody
									 * without the rights of the owner */
} JqCatalog;

/* Columns of jobs_queue and its leaves, as the install script orders them. */
enum JqJobColumn
{
	JQ_JOB_ID = 1,
	JQ_JOB_JOB_TYPE,
	JQ_JOB_STAGE,
	JQ_JOB_PRIORITY,
	JQ_JOB_SCHEDULED_AT,
	JQ_JOB_PAYLOAD,
	JQ_JOB_MAX_ATTEMPTS,
	JQ_JOB_CRASHES,
	JQ_JOB_LAST_ERROR,
	JQ_JOB_CORRELATION_ID,
	JQ_JOB_UNIQUE_KEY,
	JQ_JOB_GROUP_KEY,
	JQ_JOB_TIMEOUT,
	JQ_JOB_BACKOFF,
	JQ_JOB_WAITING_FOR,
	JQ_JOB_CRON_TASK_ID,
	JQ_JOB_CRON_INSTANT,
	JQ_JOB_OWNER,
	JQ_JOB_IDEMPOTENCY_KEY,
	JQ_JOB_RESULT,
	JQ_JOB_PROGRESS,
	JQ_JOB_TAGS,
	JQ_JOB_METADATA,
	JQ_JOB_CREATED_AT,
	JQ_JOB_FINISHED_AT,
	JQ_JOB_CANCEL_REQUESTED_AT,
	JQ_JOB_STATUS,
	JQ_JOB_ATTEMPTS,
	JQ_JOB_CLAIM_NO,
	JQ_JOB_LOCKED_BY,
	JQ_JOB_LOCKED_AT,
	JQ_JOB_LEASE_EXPIRES_AT,
	JQ_JOB_HOLDER,
	JQ_JOB_UPDATED_AT,
	JQ_JOB_NCOLUMNS = JQ_JOB_UPDATED_AT
};

/* Columns of job_runs. */
enum JqRunColumn
{
	JQ_RUN_JOB_ID = 1,
	JQ_RUN_CLAIM_NO,
	JQ_RUN_ATTEMPT,
	JQ_RUN_JOB_TYPE,
	JQ_RUN_STAGE,
	JQ_RUN_CORRELATION_ID,
	JQ_RUN_WORKER_ID,
	JQ_RUN_STATUS,
	JQ_RUN_CHARGED,
	JQ_RUN_STARTED_AT,
	JQ_RUN_FINISHED_AT,
	JQ_RUN_ERROR,
	JQ_RUN_RESULT,
	JQ_RUN_COMMAND_TAG,
	JQ_RUN_RESPONSE,
	JQ_RUN_NCOLUMNS = JQ_RUN_RESPONSE
};

/* Columns of job_dependencies. */
enum JqDependencyColumn
{
	JQ_DEPENDENCY_JOB_ID = 1,
	JQ_DEPENDENCY_DEPENDS_ON,
	JQ_DEPENDENCY_ON_FAILURE,
	JQ_DEPENDENCY_SHARES_RESULT,
	JQ_DEPENDENCY_STATUS,
	JQ_DEPENDENCY_ENDED_AT,
	JQ_DEPENDENCY_JOB_TYPE,
	JQ_DEPENDENCY_RESULT
};

/* NULL when this database does not have the extension.  In a transaction. */
extern const JqCatalog *jq_catalog_if_present(void);

/* The extension's oid, without touching its tables; InvalidOid: none. */
extern Oid	jq_catalog_extension(void);

/* As above; raises 55000 when the extension is absent. */
extern const JqCatalog *jq_catalog(void);

#endif							/* JQ_CATALOG_H */
