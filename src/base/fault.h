/*-------------------------------------------------------------------------
 *
 * fault.h
 *	  Named places where a test can make the code fail.
 *
 *	  Only a build with -DJQ_FAULTS has them; elsewhere JQ_FAULT() is nothing
 *	  and the library exports none of this.  A test creates the functions
 *	  itself, as a superuser:
 *
 *	  jobqueue_arm_fault(point text, action text, count int [, skip int])
 *		  arms a point: the next "skip" times that it is reached nothing
 *		  happens, the "count" times after that the action does
 *	  jobqueue_disarm_faults()
 *		  disarms all, and lets go on what was paused
 *	  jobqueue_fault_count(point text)
 *		  how often a point was reached since the server has begun
 *	  jobqueue_spin(ms int)
 *		  uses the processor for that long, deaf to interrupts
 *
 *	  Actions: error (XX000), sigkill, sigterm (of the own process), pause
 *	  (until disarmed, asked to shut down, or for a minute), sleep (100 ms).
 *	  A crash disarms, for the memory is new.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_FAULT_H
#define JQ_FAULT_H

#ifdef JQ_FAULTS

/* Asks for shared memory; once, from _PG_init of a preloaded library. */
extern void jq_fault_init(void);

/* Never with an LWLock held or in a critical section: it may raise. */
extern void jq_fault_reach(const char *point);

#define JQ_FAULT(point) jq_fault_reach(point)
#define JQ_FAULT_INIT() jq_fault_init()
#else
#define JQ_FAULT(point) ((void) 0)
#define JQ_FAULT_INIT() ((void) 0)
#endif

#endif							/* JQ_FAULT_H */
