/*-------------------------------------------------------------------------
 *
 * shared_memory.c
 *	  One pair of the server's hooks for all who want shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"

#include "base/shared_memory.h"

#define MAX_PARTS 16

typedef struct Part
{
	void		(*request) (void);
	void		(*create) (void);
} Part;

static Part parts[MAX_PARTS];
static int	nparts = 0;
static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

static void request_all(void);
static void create_all(void);

void
jq_shared_memory_add(void (*request) (void), void (*create) (void))
{
	if (nparts == MAX_PARTS)
		elog(FATAL, "too many parts of shared memory");
	if (nparts == 0)
	{
		next_request_hook = shmem_request_hook;
		shmem_request_hook = request_all;
		next_startup_hook = shmem_startup_hook;
		shmem_startup_hook = create_all;
	}
	parts[nparts].request = request;
	parts[nparts].create = create;
	nparts++;
}

static void
request_all(void)
{
	if (next_request_hook)
		next_request_hook();
	for (int i = 0; i < nparts; i++)
		parts[i].request();
}

static void
create_all(void)
{
	if (next_startup_hook)
		next_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nparts; i++)
		parts[i].create();
	LWLockRelease(AddinShmemInitLock);
}
