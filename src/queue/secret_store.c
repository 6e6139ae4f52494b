/*-------------------------------------------------------------------------
 *
 * secret_store.c
 *	  Secrets as they are stored.
 *
 * No value is ever an argument or a result of a statement: extensions such as
 * auto_explain log the arguments of statements inside of functions.  Values go
 * straight to their table and come from a scan of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/names.h"
#include "base/ownership.h"
#include "base/rows.h"
#include "base/scope.h"
#include "base/statement.h"
#include "base/table.h"
#include "queue/secret_file.h"
#include "queue/secret_store.h"
#include "queue/secrets.h"

/* Parts of a value are so short that a row fits into a page. */
#define PART_LENGTH 2000

#define MAX_PATH_LENGTH 1023

static JqStatement add_secret = {
	.text = "INSERT INTO @.http_secrets (name) VALUES ($1)"
	" ON CONFLICT (name) DO NOTHING",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement lock_secret = {
	.text = "SELECT owner::pg_catalog.oid FROM @.http_secrets WHERE name = $1"
	" FOR UPDATE",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

/* A value that is set again does not prolong the life of the one before. */
static JqStatement confirm_secret = {
	.text = "UPDATE @.http_secrets SET file = NULL, previous_until ="
	" CASE WHEN previous_until < $2 THEN previous_until"
	" WHEN previous_until IS NOT NULL THEN $2 END"
	" WHERE name = $1",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}
};

static JqStatement change_secret = {
	.text = "UPDATE @.http_secrets SET file = $3, previous_until = $2"
	" WHERE name = $1",
	.nargs = 3,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

static JqStatement delete_secret = {
	.text = "DELETE FROM @.http_secrets WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement delete_value = {
	.text = "DELETE FROM @.http_secret_values"
	" WHERE name = $1 AND is_previous = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, BOOLOID}
};

static JqStatement keep_value = {
	.text = "UPDATE @.http_secret_values SET is_previous = true"
	" WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}
};

static JqStatement select_expired = {
	.text = "SELECT EXISTS (SELECT FROM @.http_secrets"
	" WHERE previous_until <= now())"
};

static JqStatement delete_expired = {
	.text = "WITH expired AS ("
	"UPDATE @.http_secrets SET previous_until = NULL"
	" WHERE previous_until <= now() RETURNING name)"
	" DELETE FROM @.http_secret_values v USING expired e"
	" WHERE v.name = e.name AND v.is_previous"
};

static void check_name(const char *name);
static void check_value(const char *value);
static bool lock(const char *name);
static void delete_values(const char *name, bool is_previous);
static void insert_value(const char *name, const char *value);
static void set_part(TupleTableSlot *row, const char *name, int part,
					 Datum value);
static void check_file(const char *name, const char *path);
static bool append_part(char *value, Size *length, Datum part);

void
jq_secret_set(const char *name, const char *value, int64 keep_previous_us)
{
	Datum		values[3] = {CStringGetTextDatum(name)};
	char		nulls[] = " nn";
	Snapshot	snapshot;
	char	   *current;
	bool		is_same;
	bool		is_kept;

	check_name(name);
	check_value(value);
	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&add_secret, values, NULL, 0);
	(void) lock(name);

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	current = jq_secret_read(name, false, snapshot, CurrentMemoryContext);
	UnregisterSnapshot(snapshot);
	is_same = current != NULL && strcmp(current, value) == 0;
	is_kept = current != NULL && keep_previous_us > 0;
	jq_secret_wipe_value(&current);

	if (!is_same || !is_kept)
		delete_values(name, true);
	if (!is_same)
	{
		if (is_kept)
			jq_statement_execute(&keep_value, values, NULL, 0);
		else
			delete_values(name, false);
		insert_value(name, value);
	}
	if (is_kept)
	{
		values[1] = TimestampTzGetDatum(GetCurrentTimestamp() + keep_previous_us);
		nulls[1] = ' ';
	}
	jq_statement_execute(is_same ? &confirm_secret : &change_secret,
						 values, nulls, 0);
	jq_scope_leave();
}

void
jq_secret_set_file(const char *name, const char *path)
{
	Datum		values[3] = {CStringGetTextDatum(name), (Datum) 0,
	CStringGetTextDatum(path)};

	check_name(name);
	jq_name_check(path, "path", 1, MAX_PATH_LENGTH);
	if (!is_absolute_path(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("path must be absolute")));
	check_file(name, path);
	jq_scope_enter(JQ_WRITE_PLAIN);
	jq_statement_execute(&add_secret, values, NULL, 0);
	(void) lock(name);
	delete_values(name, true);
	delete_values(name, false);
	jq_statement_execute(&change_secret, values, " n ", 0);
	jq_scope_leave();
}

static void
check_file(const char *name, const char *path)
{
	JqSecretFile file = {0};
	JqSecret	secret = {0};
	const char *problem = jq_secret_file_read(path, &file, &secret,
											  CurrentMemoryContext);

	jq_secret_wipe(&secret);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file of secret \"%s\" %s", name, problem),
				 errhint("It must be a regular file of the user that the server runs as, with mode 0600 or 0400: the value, and perhaps the previous value in a second line.")));
}

bool
jq_secret_drop(const char *name)
{
	Datum		values[] = {CStringGetTextDatum(name)};
	bool		is_there;

	check_name(name);
	jq_scope_enter(JQ_WRITE_PLAIN);
	is_there = lock(name);
	if (is_there)
	{
		delete_values(name, true);
		delete_values(name, false);
		jq_statement_execute(&delete_secret, values, NULL, 0);
	}
	jq_scope_leave();
	return is_there;
}

/* A name that is wrong may be a value: it is not printed. */
static void
check_name(const char *name)
{
	jq_name_check_required(name, "name");
	if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a secret must consist of letters, digits, \"_\" and \"-\"")));
}

static void
check_value(const char *value)
{
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value must not be empty"),
				 errhint("Call drop_secret() to delete a secret.")));
	if (strlen(value) > JQ_SECRET_MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value is too long"),
				 errdetail("It has %zu bytes, the limit is %d.",
						   strlen(value), JQ_SECRET_MAX_LENGTH)));
}

/*
 * Locks the row of a secret that the caller may change; false when there is
 * none.
 */
static bool
lock(const char *name)
{
	Datum		values[] = {CStringGetTextDatum(name)};
	bool		isnull;
	Datum		owner;

	if (jq_statement_execute(&lock_secret, values, NULL, 1) == 0)
		return false;
	owner = jq_statement_nullable(0, 1, &isnull);
	/* What a dropped role has left is nobody's to take. */
	jq_ownership_check(jq_scope_caller(),
					   isnull ? jq_catalog()->owner : DatumGetObjectId(owner),
					   "secret");
	return true;
}

static void
delete_values(const char *name, bool is_previous)
{
	Datum		values[] = {CStringGetTextDatum(name), BoolGetDatum(is_previous)};

	jq_statement_execute(&delete_value, values, NULL, 0);
}

static void
insert_value(const char *name, const char *value)
{
	int			length = strlen(value);
	JqTable		table;
	TupleTableSlot *row;

	jq_table_open(&table, jq_secret_relation("http_secret_values"));
	row = jq_table_new_row(&table);
	for (int part = 0; length > 0; part++)
	{
		int			part_length = pg_mbcliplen(value, length, PART_LENGTH);
		text	   *copy = cstring_to_text_with_len(value, part_length);

		set_part(row, name, part, PointerGetDatum(copy));
		jq_table_insert(&table, row);
		explicit_bzero(copy, VARSIZE(copy));
		value += part_length;
		length -= part_length;
	}
	jq_table_close(&table);
}

static void
set_part(TupleTableSlot *row, const char *name, int part, Datum value)
{
	ExecClearTuple(row);
	memset(row->tts_isnull, true, row->tts_tupleDescriptor->natts);
	row->tts_values[0] = CStringGetTextDatum(name);
	row->tts_values[1] = BoolGetDatum(false);
	row->tts_values[2] = Int16GetDatum(part);
	row->tts_values[3] = value;
	memset(row->tts_isnull, false, 4);
	ExecStoreVirtualTuple(row);
}

char *
jq_secret_read(const char *name, bool is_previous, Snapshot snapshot,
			   MemoryContext context)
{
	Relation	rel = table_open(jq_secret_relation("http_secret_values"),
								 AccessShareLock);
	Relation	index = index_open(jq_secret_relation("http_secret_values_pkey"),
								   AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	row;
	char		value[JQ_SECRET_MAX_LENGTH + 1];
	Size		length = 0;
	bool		fits = true;
	char	   *result = NULL;

	ScanKeyInit(&keys[0], SPI_fnumber(desc, "name"), BTEqualStrategyNumber,
				F_TEXTEQ, CStringGetTextDatum(name));
	ScanKeyInit(&keys[1], SPI_fnumber(desc, "is_previous"),
				BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(is_previous));
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	while (fits && HeapTupleIsValid(row = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool		isnull;

		fits = append_part(value, &length,
						   jq_row_value(row, desc, "value", &isnull));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	value[length] = '\0';
	if (length > 0 && fits)
		result = MemoryContextStrdup(context, value);
	explicit_bzero(value, sizeof(value));
	return result;
}

/* False when somebody has written more than there can be. */
static bool
append_part(char *value, Size *length, Datum part)
{
	text	   *data = DatumGetTextPP(part);
	Size		part_length = VARSIZE_ANY_EXHDR(data);

	if (*length + part_length > JQ_SECRET_MAX_LENGTH)
		return false;
	memcpy(value + *length, VARDATA_ANY(data), part_length);
	*length += part_length;
	return true;
}

Oid
jq_secret_relation(const char *name)
{
	Oid			relid = get_relname_relid(name, jq_catalog()->schema);

	if (!OidIsValid(relid))
		elog(ERROR, "relation \"%s\" does not exist", name);
	return relid;
}

bool
jq_secrets_have_expired(void)
{
	(void) jq_statement_query(&select_expired, NULL, NULL, 0);
	return DatumGetBool(jq_statement_value(0, 1));
}

void
jq_secrets_delete_expired(void)
{
	(void) jq_statement_execute(&delete_expired, NULL, NULL, 0);
}
