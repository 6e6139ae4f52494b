/*-------------------------------------------------------------------------
 *
 * fault.c
 *	  Named places where a test can make the code fail.
 *
 *	  The whole file is for builds with -DJQ_FAULTS.  A point has an entry
 *	  from when it is first armed or reached; a point that is reached looks
 *	  for its entry, counts, and does what was asked of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "base/shared_memory.h"

#ifdef JQ_FAULTS

#include <signal.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define MAX_POINTS 64
#define LOCK_TRANCHE "jobqueue_faults"
#define PAUSE_MS 60000			/* the longest pause */
#define SLEEP_MS 100
#define LOOK_MS 10				/* how often a pause looks whether it ends */

typedef enum FaultAction
{
	FAULT_NONE,
	FAULT_ERROR,
	FAULT_SIGKILL,
	FAULT_SIGTERM,
	FAULT_PAUSE,
	FAULT_SLEEP
}			FaultAction;

static const char *const action_names[] = {
	"none", "error", "sigkill", "sigterm", "pause", "sleep"
};

typedef struct FaultPoint
{
	char		name[NAMEDATALEN];	/* empty: this one and the rest are free */
	int64		reached;
	FaultAction action;
	int			skip;			/* times that nothing happens before */
	int			left;			/* times that the action still happens */
}			FaultPoint;

typedef struct Faults
{
	LWLock	   *lock;			/* guards all of it */
	uint32		disarmed;		/* grows; ends the pauses */
	FaultPoint	points[MAX_POINTS];
}			Faults;

static Faults * faults = NULL;

PG_FUNCTION_INFO_V1(jobqueue_arm_fault);
PG_FUNCTION_INFO_V1(jobqueue_disarm_faults);
PG_FUNCTION_INFO_V1(jobqueue_fault_count);
PG_FUNCTION_INFO_V1(jobqueue_spin);

static void request_memory(void);
static void create_memory(void);
static void require_faults(void);
static FaultPoint * find_point(const char *name);
static void act(const char *point, FaultAction action, uint32 disarmed);
static void pause_until(TimestampTz until, uint32 disarmed);

void
jq_fault_init(void)
{
	jq_shared_memory_add(request_memory, create_memory);
}

static void
request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Faults)));
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

static void
create_memory(void)
{
	bool		found;

	faults = ShmemInitStruct("jobqueue faults", sizeof(Faults), &found);
	if (!found)
	{
		memset(faults, 0, sizeof(Faults));
		faults->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
	}
}

/* Finds a point, or gives it an entry; NULL when there is none left. */
static FaultPoint *
find_point(const char *name)
{
	for (int i = 0; i < MAX_POINTS; i++)
	{
		FaultPoint *point = &faults->points[i];

		if (point->name[0] == '\0')
			strlcpy(point->name, name, NAMEDATALEN);
		if (strncmp(point->name, name, NAMEDATALEN - 1) == 0)
			return point;
	}
	return NULL;
}

void
jq_fault_reach(const char *name)
{
	FaultAction action = FAULT_NONE;
	FaultPoint *point;
	uint32		disarmed;

	if (faults == NULL)
		return;
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	disarmed = faults->disarmed;
	point = find_point(name);
	if (point != NULL)
	{
		point->reached++;
		if (point->skip > 0)
			point->skip--;
		else if (point->left > 0)
		{
			point->left--;
			action = point->action;
		}
	}
	LWLockRelease(faults->lock);
	if (action != FAULT_NONE)
		act(name, action, disarmed);
}

static void
act(const char *point, FaultAction action, uint32 disarmed)
{
	TimestampTz now = GetCurrentTimestamp();

	ereport(LOG,
			(errmsg("fault point \"%s\": %s", point, action_names[action])));
	switch (action)
	{
		case FAULT_NONE:
			break;
		case FAULT_ERROR:
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("fault point \"%s\" was armed", point)));
			break;
		case FAULT_SIGKILL:
			(void) kill(MyProcPid, SIGKILL);
			break;
		case FAULT_SIGTERM:
			(void) kill(MyProcPid, SIGTERM);
			CHECK_FOR_INTERRUPTS();
			break;
		case FAULT_PAUSE:
			pause_until(TimestampTzPlusMilliseconds(now, PAUSE_MS), disarmed);
			break;
		case FAULT_SLEEP:
			pause_until(TimestampTzPlusMilliseconds(now, SLEEP_MS), disarmed);
			break;
	}
}

/* The latch is left alone: what set it was meant for somebody else. */
static void
pause_until(TimestampTz until, uint32 disarmed)
{
	while (GetCurrentTimestamp() < until && !ShutdownRequestPending)
	{
		bool		is_over;

		LWLockAcquire(faults->lock, LW_SHARED);
		is_over = faults->disarmed != disarmed;
		LWLockRelease(faults->lock);
		if (is_over)
			break;
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_MS,
						 PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
require_faults(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to use fault points")));
	if (faults == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("fault points need shared memory"),
				 errhint("Add jobqueue to shared_preload_libraries and restart the server.")));
}

Datum
jobqueue_arm_fault(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			count = PG_GETARG_INT32(2);
	int			skip = PG_NARGS() > 3 ? PG_GETARG_INT32(3) : 0;
	int			action = 0;
	FaultPoint *point;

	require_faults();
	while (action < (int) lengthof(action_names) &&
		   strcmp(action_names[action], action_name) != 0)
		action++;
	if (action == (int) lengthof(action_names) || count < 0 || skip < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid fault \"%s\", %d times after %d",
						action_name, count, skip)));

	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	point = find_point(name);
	if (point != NULL)
	{
		point->action = (FaultAction) action;
		point->left = count;
		point->skip = skip;
	}
	LWLockRelease(faults->lock);
	if (point == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("there are more than %d fault points", MAX_POINTS)));
	PG_RETURN_VOID();
}

Datum
jobqueue_disarm_faults(PG_FUNCTION_ARGS)
{
	require_faults();
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	faults->disarmed++;
	for (int i = 0; i < MAX_POINTS; i++)
		faults->points[i].left = 0;
	LWLockRelease(faults->lock);
	PG_RETURN_VOID();
}

Datum
jobqueue_fault_count(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	FaultPoint *point;
	int64		reached = 0;

	require_faults();
	LWLockAcquire(faults->lock, LW_EXCLUSIVE);
	point = find_point(name);
	if (point != NULL)
		reached = point->reached;
	LWLockRelease(faults->lock);
	PG_RETURN_INT64(reached);
}

/* A body as bad as they come: it looks at no interrupt. */
Datum
jobqueue_spin(PG_FUNCTION_ARGS)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													PG_GETARG_INT32(0));

	while (GetCurrentTimestamp() < until)
		;
	PG_RETURN_VOID();
}

#endif							/* JQ_FAULTS */
