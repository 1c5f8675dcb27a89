/*
 * type_schema.c
 *	  PostgreSQL types in the words of JSON Schema.
 *
 *	  A schema says what the type's input takes as closely as the engine's
 *	  grammar can, so that what the model writes can be stored. What it cannot
 *	  say (the check of a domain, the syntax of an unknown type) is tested when
 *	  the value is stored.
 */
#include "pg/functions/type_schema.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Days that exist: the 29th of February only in the years that have it. */
#define DAY \
	"([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|" \
	"02-(0[1-9]|1[0-9]|2[0-8]))|" \
	"([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)-02-29)"
#define CLOCK "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\\\.[0-9]{1,6})?"
#define ZONE "(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])?"
/* An interval has no unit twice, or PostgreSQL refuses it: one, or that and the next smaller. */
#define SPAN(unit) "-?[0-9]{1,6} " unit "s?"
#define SPANS(unit, smaller) SPAN(unit) "( " SPAN(smaller) ")?|"
#define INTERVAL                                                                                                       \
	SPANS("year", "month") SPANS("month", "day") SPANS("week", "day") SPANS("day", "hour") SPANS("hour", "minute")    \
		SPANS("minute", "second") SPAN("second")

/* Types whose schema is the same wherever they stand: a JSON type, and what follows it. */
static const struct
{
	Oid			type;
	const char *json_type;
	const char *keywords;
}			simple_types[] =
{
	{BOOLOID, "boolean", ""},
	{INT2OID, "integer", ", \"minimum\": -32768, \"maximum\": 32767"},
	{INT4OID, "integer", ", \"minimum\": -2147483648, \"maximum\": 2147483647"},
	{INT8OID, "integer", ""},
	{OIDOID, "integer", ", \"minimum\": 0, \"maximum\": 4294967295"},
	{FLOAT4OID, "number", ""},
	{FLOAT8OID, "number", ""},
	/* counted in bytes, and cut without a word */
	{CHAROID, "string", ", \"pattern\": \"^[ -~]?$\""},
	{NAMEOID, "string", ", \"pattern\": \"^[ -~]{0,63}$\""},
	{DATEOID, "string", ", \"pattern\": \"^" DAY "$\""},
	{TIMEOID, "string", ", \"pattern\": \"^" CLOCK "$\""},
	{TIMETZOID, "string", ", \"pattern\": \"^" CLOCK ZONE "$\""},
	{TIMESTAMPOID, "string", ", \"pattern\": \"^" DAY "T" CLOCK "$\""},
	{TIMESTAMPTZOID, "string", ", \"pattern\": \"^" DAY "T" CLOCK ZONE "$\""},
	{INTERVALOID, "string", ", \"pattern\": \"^(" INTERVAL ")$\""},
	{UUIDOID, "string", ", \"format\": \"uuid\""},
	{MACADDROID, "string", ", \"pattern\": \"^([0-9a-f]{2}:){5}[0-9a-f]{2}$\""},
	{MACADDR8OID, "string", ", \"pattern\": \"^([0-9a-f]{2}:){7}[0-9a-f]{2}$\""},
};

/* More bits are not counted: the engine's expressions repeat a part no more often. */
#define MOST_BITS 65535

/* What the engine takes, and a little more: what is longer is given up before it fills the memory. */
#define MOST_BYTES (4 * 1024 * 1024)

static void append_type(StringInfo s, Oid type, int32 typmod, bool nullable);
static void append_row(StringInfo s, TupleDesc tupdesc, bool nullable);

/* Rows of rows of rows: a few types with many columns have any number of them in all. */
static void
check_length(const StringInfo s)
{
	CHECK_FOR_INTERRUPTS();
	if (s->len > MOST_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the type has too many columns"),
				 errdetail("With the columns of their types, their schema has more than %d bytes.", MOST_BYTES),
				 errhint("Ask for fewer of them at a time.")));
}

/* ---- enums ---- */

List *
m1pg_enum_labels(Oid type)
{
	List	   *labels = NIL;
	Relation	rel = table_open(EnumRelationId, AccessShareLock);
	Relation	index = index_open(EnumTypIdSortOrderIndexId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(type));
	scan = systable_beginscan_ordered(rel, index, NULL, 1, &key);
	while (HeapTupleIsValid(row = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		CHECK_FOR_INTERRUPTS();
		labels = lappend(labels, pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(row))->enumlabel)));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return labels;
}

static void
append_strings(StringInfo s, const List *strings)
{
	ListCell   *cell;

	foreach(cell, strings)
	{
		CHECK_FOR_INTERRUPTS();
		if (cell != list_head(strings))
			appendStringInfoString(s, ", ");
		escape_json(s, lfirst(cell));
	}
}

void
m1pg_append_json_strings(StringInfo s, const List *strings)
{
	appendStringInfoChar(s, '[');
	append_strings(s, strings);
	appendStringInfoChar(s, ']');
}

static void
append_enum(StringInfo s, Oid type, bool nullable)
{
	List	   *labels = m1pg_enum_labels(type);

	appendStringInfoString(s, "{\"enum\": [");
	append_strings(s, labels);
	if (nullable)
		appendStringInfoString(s, labels == NIL ? "null" : ", null");
	appendStringInfoString(s, "]}");
}

/* ---- types ---- */

/* An object with a type and what follows it, each keyword behind a comma. */
static void
append_schema(StringInfo s, const char *json_type, bool nullable, const char *keywords)
{
	appendStringInfo(s, nullable ? "{\"type\": [\"%s\", \"null\"]%s}" : "{\"type\": \"%s\"%s}", json_type, keywords);
}

/* Digits that a bound may have: whole ones, and all of one with a fraction. See m1_json_bound. */
#define MOST_WHOLE 18
#define MOST_DIGITS 15

/* The greatest value of numeric(p, s), or one a little less, in the digits that the engine takes. */
static char *
greatest_numeric(int precision, int scale)
{
	int			whole = precision - scale;
	StringInfoData s;

	initStringInfo(&s);
	for (int i = Min(whole, MOST_WHOLE); i > 0; i--)
		appendStringInfoChar(&s, i > -scale || whole > MOST_WHOLE ? '9' : '0');
	if (whole <= 0)
		appendStringInfoChar(&s, '0');
	if (scale <= 0 || whole >= MOST_DIGITS)
		return s.data;
	appendStringInfoChar(&s, '.');
	for (int i = 1; i <= scale && i <= MOST_DIGITS - Max(whole, 0); i++)
		appendStringInfoChar(&s, i <= -whole ? '0' : '9');
	return s.data;
}

static void
append_numeric(StringInfo s, int32 typmod, bool nullable)
{
	int			scale;
	char	   *greatest;

	if (typmod < (int32) VARHDRSZ)
	{
		append_schema(s, "number", nullable, "");
		return;
	}
#if PG_VERSION_NUM >= 150000
	scale = (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
#else
	scale = (typmod - VARHDRSZ) & 0xffff;
#endif
	greatest = greatest_numeric(((typmod - VARHDRSZ) >> 16) & 0xffff, scale);
	append_schema(s, scale <= 0 ? "integer" : "number", nullable,
				  psprintf(", \"minimum\": -%s, \"maximum\": %s", greatest, greatest));
}

/* bit(n) has all of them, bit varying(n) no more. */
static void
append_bits(StringInfo s, bool varying, int32 n, bool nullable)
{
	const char *pattern = "[01]*";

	if (n >= 0 && n <= MOST_BITS)
		pattern = psprintf(varying ? "[01]{0,%d}" : "[01]{%d}", n);
	append_schema(s, "string", nullable, psprintf(", \"pattern\": \"^%s$\"", pattern));
}

static void
append_base_type(StringInfo s, Oid type, int32 typmod, bool nullable)
{
	for (int i = 0; i < (int) lengthof(simple_types); i++)
		if (simple_types[i].type == type)
		{
			append_schema(s, simple_types[i].json_type, nullable, simple_types[i].keywords);
			return;
		}
	if (type == NUMERICOID)
		append_numeric(s, typmod, nullable);
	else if ((type == VARCHAROID || type == BPCHAROID) && typmod >= (int32) VARHDRSZ)
		append_schema(s, "string", nullable, psprintf(", \"maxLength\": %d", typmod - (int32) VARHDRSZ));
	else if (type == BITOID || type == VARBITOID)
		append_bits(s, type == VARBITOID, typmod, nullable);
	else if (type == JSONOID || type == JSONBOID)
		appendStringInfoString(s, "{}");
	else
		append_schema(s, "string", nullable, "");
}

static void
append_array(StringInfo s, Oid element, int32 typmod, bool nullable)
{
	StringInfoData items;

	initStringInfo(&items);
	appendStringInfoString(&items, ", \"items\": ");
	append_type(&items, element, typmod, false);
	append_schema(s, "array", nullable, items.data);
}

static bool
domain_refuses_null(Oid type)
{
	while (get_typtype(type) == TYPTYPE_DOMAIN)
	{
		HeapTuple	row = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
		Form_pg_type form;
		bool		refuses;

		if (!HeapTupleIsValid(row))
			elog(ERROR, "cache lookup failed for type %u", type);
		form = (Form_pg_type) GETSTRUCT(row);
		refuses = form->typnotnull;
		type = form->typbasetype;
		ReleaseSysCache(row);
		if (refuses)
			return true;
	}
	return false;
}

static void
append_type(StringInfo s, Oid type, int32 typmod, bool nullable)
{
	Oid			base;
	Oid			element;

	check_length(s);
	check_stack_depth();
	nullable = nullable && !domain_refuses_null(type);
	base = getBaseTypeAndTypmod(type, &typmod);
	element = get_element_type(base);
	if (OidIsValid(element))
		append_array(s, element, typmod, nullable);
	else if (get_typtype(base) == TYPTYPE_ENUM)
		append_enum(s, base, nullable);
	else if (get_typtype(base) == TYPTYPE_COMPOSITE)
	{
		TupleDesc	tupdesc = lookup_rowtype_tupdesc_copy(base, -1);

		append_row(s, tupdesc, nullable);
	}
	else
		append_base_type(s, base, typmod, nullable);
}

/* ---- rows ---- */

static List *
column_names(TupleDesc tupdesc)
{
	List	   *names = NIL;

	for (int i = 0; i < tupdesc->natts; i++)
		if (!TupleDescAttr(tupdesc, i)->attisdropped)
			names = lappend(names, NameStr(TupleDescAttr(tupdesc, i)->attname));
	return names;
}

static void
append_row(StringInfo s, TupleDesc tupdesc, bool nullable)
{
	StringInfoData keywords;
	const char *separator = "";

	initStringInfo(&keywords);
	appendStringInfoString(&keywords, ", \"properties\": {");
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped)
			continue;
		appendStringInfoString(&keywords, separator);
		escape_json(&keywords, NameStr(att->attname));
		appendStringInfoString(&keywords, ": ");
		append_type(&keywords, att->atttypid, att->atttypmod, !att->attnotnull);
		separator = ", ";
	}
	appendStringInfoString(&keywords, "}, \"required\": ");
	m1pg_append_json_strings(&keywords, column_names(tupdesc));
	appendStringInfoString(&keywords, ", \"additionalProperties\": false");
	append_schema(s, "object", nullable, keywords.data);
}

char *
m1pg_schema_of_row(TupleDesc tupdesc)
{
	StringInfoData s;

	initStringInfo(&s);
	append_row(&s, tupdesc, false);
	return s.data;
}

char *
m1pg_schema_of_type(Oid type, bool nullable)
{
	StringInfoData s;

	initStringInfo(&s);
	append_type(&s, type, -1, nullable);
	return s.data;
}

/* The columns of a row, or of the rows of an array; NULL for other types. */
static TupleDesc
row_of_type(Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);

	if (OidIsValid(element))
		base = getBaseType(element);
	return get_typtype(base) == TYPTYPE_COMPOSITE ? lookup_rowtype_tupdesc_copy(base, -1) : NULL;
}

char *
m1pg_names_of_row(TupleDesc tupdesc)
{
	StringInfoData s;

	check_stack_depth();
	initStringInfo(&s);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		TupleDesc	nested;

		if (att->attisdropped)
			continue;
		if (s.len > 0)
			appendStringInfoString(&s, ", ");
		appendStringInfoString(&s, NameStr(att->attname));
		if ((nested = row_of_type(att->atttypid)) != NULL)
			appendStringInfo(&s, " (%s)", m1pg_names_of_row(nested));
		check_length(&s);
	}
	return s.data;
}
