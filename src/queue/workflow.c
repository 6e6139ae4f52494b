/*-------------------------------------------------------------------------
 *
 * workflow.c
 *	  New jobs that wait for each other.
 *
 * A job is enqueued after its parents, so that ids grow from parents to
 * children: then whatever locks jobs in the order of ids locks parents first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/names.h"
#include "queue/dependencies.h"
#include "queue/workflow.h"

/* So many jobs of a cycle are named. */
#define MAX_NAMED 10

typedef enum Progress
{
	NOT_REACHED,
	ON_PATH,					/* its parents are being looked at */
	PLACED
} Progress;

typedef struct Member
{
	const char *key;			/* or NULL */
	int			number;			/* in the array */
	int		   *parents;		/* numbers */
	int			nparents;
	int			next_parent;	/* to look at */
	Progress	progress;
} Member;

static Member *read_nodes(const JqNewJob *jobs, int count);
static Member **sort_by_key(Member *nodes, int count, int *nkeys);
static void read_parents(Member *node, Datum keys, Member **by_key, int nkeys);
static int	compare_keys(const void *a, const void *b);
static int *place_parents_first(Member *nodes, int count);
pg_noreturn static void report_cycle(const Member *nodes, const int *path,
									 int depth, int parent);
static bool has_edges(const Member *nodes, int count);
static Datum with_parents(Datum depends_on, const Member *node,
						  const int64 *ids);

int64 *
jq_workflow_enqueue(JqNewJob *jobs, int count)
{
	int64	   *ids = palloc(sizeof(int64) * Max(count, 1));
	Member	   *nodes = read_nodes(jobs, count);
	int		   *order = place_parents_first(nodes, count);

	if (!has_edges(nodes, count))
	{
		jq_enqueue_each(jobs, count, ids);
		return ids;
	}
	for (int i = 0; i < count; i++)
	{
		int			n = order[i];

		CHECK_FOR_INTERRUPTS();
		if (nodes[n].nparents > 0)
			jobs[n].depends_on = with_parents(jobs[n].depends_on, &nodes[n],
											  ids);
		ids[n] = jq_enqueue(&jobs[n]);
	}
	return ids;
}

static Member *
read_nodes(const JqNewJob *jobs, int count)
{
	Member	   *nodes = palloc0(sizeof(Member) * Max(count, 1));
	Member	  **by_key;
	int			nkeys;

	for (int i = 0; i < count; i++)
	{
		nodes[i].number = i;
		if (jobs[i].key == 0)
			continue;
		nodes[i].key = TextDatumGetCString(jobs[i].key);
		jq_name_check(nodes[i].key, "key", 1, 255);
	}
	by_key = sort_by_key(nodes, count, &nkeys);
	for (int i = 0; i < count; i++)
		if (jobs[i].depends_on_keys != 0)
			read_parents(&nodes[i], jobs[i].depends_on_keys, by_key, nkeys);
	return nodes;
}

static Member **
sort_by_key(Member *nodes, int count, int *nkeys)
{
	Member	  **by_key = palloc(sizeof(Member *) * Max(count, 1));

	*nkeys = 0;
	for (int i = 0; i < count; i++)
		if (nodes[i].key != NULL)
			by_key[(*nkeys)++] = &nodes[i];
	qsort(by_key, *nkeys, sizeof(Member *), compare_keys);
	for (int i = 1; i < *nkeys; i++)
		if (compare_keys(&by_key[i - 1], &by_key[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key \"%s\" is given twice in jobs", by_key[i]->key),
					 errdetail("Elements %d and %d have it.",
							   Min(by_key[i - 1]->number, by_key[i]->number) + 1,
							   Max(by_key[i - 1]->number, by_key[i]->number) + 1)));
	return by_key;
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp((*(Member *const *) a)->key, (*(Member *const *) b)->key);
}

static void
read_parents(Member *node, Datum keys, Member **by_key, int nkeys)
{
	Datum	   *elements;
	int			nelements;

	deconstruct_array(DatumGetArrayTypeP(keys), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &nelements);
	node->parents = palloc(sizeof(int) * Max(nelements, 1));
	for (int i = 0; i < nelements; i++)
	{
		Member		wanted = {.key = TextDatumGetCString(elements[i])};
		Member	   *wanted_pointer = &wanted;
		Member	  **found = nkeys == 0 ? NULL :
		bsearch(&wanted_pointer, by_key, nkeys, sizeof(Member *), compare_keys);

		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown key \"%s\" in depends_on_keys of element %d of jobs",
							wanted.key, node->number + 1),
					 errhint("It must be the \"key\" of another element.")));
		node->parents[node->nparents++] = (*found)->number;
	}
}

/* Keeps the order of the array as far as that goes. */
static int *
place_parents_first(Member *nodes, int count)
{
	int		   *order = palloc(sizeof(int) * Max(count, 1));
	int		   *path = palloc(sizeof(int) * Max(count, 1));
	int			placed = 0;

	for (int i = 0; i < count; i++)
	{
		int			depth = 0;

		if (nodes[i].progress == PLACED)
			continue;
		path[depth++] = i;
		nodes[i].progress = ON_PATH;
		while (depth > 0)
		{
			Member	   *node = &nodes[path[depth - 1]];
			int			parent;

			CHECK_FOR_INTERRUPTS();
			if (node->next_parent == node->nparents)
			{
				node->progress = PLACED;
				order[placed++] = node->number;
				depth--;
				continue;
			}
			parent = node->parents[node->next_parent++];
			if (nodes[parent].progress == ON_PATH)
				report_cycle(nodes, path, depth, parent);
			if (nodes[parent].progress == PLACED)
				continue;
			nodes[parent].progress = ON_PATH;
			path[depth++] = parent;
		}
	}
	return order;
}

/* The path leads from children to parents, and now back to one on it. */
static void
report_cycle(const Member *nodes, const int *path, int depth, int parent)
{
	StringInfoData names;
	int			first = depth - 1;

	while (path[first] != parent)
		first--;
	initStringInfo(&names);
	for (int i = first; i < depth && i < first + MAX_NAMED; i++)
		appendStringInfo(&names, "\"%s\" waits for ", nodes[path[i]].key);
	if (depth - first > MAX_NAMED)
		appendStringInfo(&names, "%d more, which wait for ",
						 depth - first - MAX_NAMED);
	appendStringInfo(&names, "\"%s\".", nodes[parent].key);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("jobs cannot wait for each other"),
			 errdetail_internal("%s", names.data)));
}

static bool
has_edges(const Member *nodes, int count)
{
	for (int i = 0; i < count; i++)
		if (nodes[i].nparents > 0)
			return true;
	return false;
}

/* The job ids that a job names, and those of the jobs whose keys it names. */
static Datum
with_parents(Datum depends_on, const Member *node, const int64 *ids)
{
	int64	   *all;
	Datum	   *given = NULL;
	int			ngiven = 0;

	if (depends_on != 0)
		deconstruct_array(DatumGetArrayTypeP(depends_on), INT8OID,
						  sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
						  &given, NULL, &ngiven);
	all = palloc(sizeof(int64) * (ngiven + node->nparents));
	for (int i = 0; i < ngiven; i++)
		all[i] = DatumGetInt64(given[i]);
	for (int i = 0; i < node->nparents; i++)
		all[ngiven + i] = ids[node->parents[i]];
	return jq_dependencies_array(all, ngiven + node->nparents);
}
