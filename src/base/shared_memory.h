/*-------------------------------------------------------------------------
 *
 * shared_memory.h
 *	  Who wants shared memory says so here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SHARED_MEMORY_H
#define JQ_SHARED_MEMORY_H

/*
 * For the functions called *_init(), while preloading.  "request" asks for room
 * and locks, once; "create" runs in the postmaster at each start and after each
 * crash, with AddinShmemInitLock held.
 */
extern void jq_shared_memory_add(void (*request) (void), void (*create) (void));

#endif							/* JQ_SHARED_MEMORY_H */
