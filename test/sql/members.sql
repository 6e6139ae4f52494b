-- The members of the extension: any change of what is installed shows here.
SELECT i.type, i.identity
FROM pg_depend d
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.classid <> 'pg_type'::regclass -- row types, members since 17
ORDER BY i.type COLLATE "C", i.identity COLLATE "C";

-- Their columns.
SELECT c.relname AS relation, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
	CASE WHEN a.attnotnull THEN 'not null' END AS "null",
	pg_get_expr(x.adbin, x.adrelid) AS default
FROM pg_depend d
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v')
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef x ON x.adrelid = c.oid AND x.adnum = a.attnum
WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_class'::regclass
	AND d.deptype = 'e' AND c.relname NOT IN ('jobs_queue_live', 'jobs_queue_done')
ORDER BY c.relname COLLATE "C", a.attnum;

-- Their constraints, indexes and triggers.
SELECT conrelid::regclass AS relation, conname, pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE conrelid IN (SELECT d.objid FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e')
	AND contype <> 'n'
ORDER BY conrelid::regclass::text COLLATE "C", conname COLLATE "C";
SELECT indrelid::regclass AS relation, pg_get_indexdef(indexrelid) AS definition
FROM pg_index
WHERE indrelid IN (SELECT d.objid FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY indrelid::regclass::text COLLATE "C", 2 COLLATE "C";
SELECT tgrelid::regclass AS relation, tgname, tgfoid::regproc AS function,
	tgenabled, pg_get_triggerdef(oid) LIKE '%BEFORE%' AS before
FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid IN (SELECT d.objid FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY tgrelid::regclass::text COLLATE "C", tgname COLLATE "C";

-- pg_upgrade creates tables and views before it attaches the leaves: a view
-- that took a leaf's row for one of jobs_queue could not be created
SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
WHERE c.relkind = 'v' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'jobqueue')
	AND pg_get_viewdef(c.oid) ~ 'jobs_queue(_live|_done)?\.\*|::jobs_queue';
