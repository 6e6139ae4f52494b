/*-------------------------------------------------------------------------
 *
 * protect.c
 *	  Work whose failure must not fail what is around it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/protect.h"

static ErrorData *in_subtransaction(void (*work) (void *arg), void *arg,
									bool keeps);

ErrorData *
jq_protect(void (*work) (void *arg), void *arg)
{
	ErrorData  *fault = jq_attempt(work, arg);

	if (fault != NULL && !jq_error_is_lasting(fault))
		ReThrowError(fault);
	return fault;
}

ErrorData *
jq_attempt(void (*work) (void *arg), void *arg)
{
	return in_subtransaction(work, arg, true);
}

ErrorData *
jq_try_out(void (*work) (void *arg), void *arg)
{
	return in_subtransaction(work, arg, false);
}

static ErrorData *
in_subtransaction(void (*work) (void *arg), void *arg, bool keeps)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile fault = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		if (keeps)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		fault = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return fault;
}

bool
jq_error_is_lasting(const ErrorData *fault)
{
	switch (ERRCODE_TO_CATEGORY(fault->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return fault->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}
