/*
 * cppcheck.h
 *		The macros of PostgreSQL that change how the code around them reads,
 *		for tools/check: cppcheck is not shown the server's headers, in which
 *		it would spend minutes.
 */
#define NULL 0
#define ERROR 21
#define FATAL 22
#define PANIC 23

#define ereport(level, ...) do { if ((level) >= ERROR) abort(); } while (0)
#define elog(level, ...) do { if ((level) >= ERROR) abort(); } while (0)
#define Assert(condition)
#define StaticAssertDecl(condition, message) extern int asserted
#define pg_attribute_noreturn()
#define pg_attribute_printf(format, first)
#define pg_noreturn
#define PGDLLEXPORT
#define FLEXIBLE_ARRAY_MEMBER

/* and of libcurl */
#define LIBCURL_VERSION_NUM 0x075700

/* and of libmicrohttpd */
#define MHD_VERSION 0x00097500

#define PG_MODULE_MAGIC extern int magic
#define PG_FUNCTION_INFO_V1(name) extern int info_##name
#define PG_TRY() if (sigsetjmp())
#define PG_CATCH() else
#define PG_FINALLY()
#define PG_END_TRY()

#define foreach(cell, list) for (cell = list_head(list); cell; cell = lnext(list, cell))
#define forboth(cell1, list1, cell2, list2) \
	for (cell1 = list_head(list1), cell2 = list_head(list2); cell1 && cell2; \
		 cell1 = lnext(list1, cell1), cell2 = lnext(list2, cell2))
#define foreach_delete_current(list, cell) list_delete_cell(list, cell)
#define dlist_foreach(iter, list) for (iter.cur = dlist_head(list); iter.cur; iter.cur = dlist_next(list, iter.cur))
#define slist_foreach(iter, list) for (iter.cur = slist_head(list); iter.cur; iter.cur = slist_next(list, iter.cur))
