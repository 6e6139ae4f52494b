/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Reading and building jsonb objects by key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_JSON_H
#define JQ_JSON_H

#include "postgres.h"

#include "utils/jsonb.h"

/* A member of an object, or NULL: there is none, or it is no object. */
extern JsonbValue *jq_json_find(Jsonb *object, const char *key);

/* A member that is a string, palloc'd; NULL: there is none. */
extern char *jq_json_text(Jsonb *object, const char *key);

/* A member as a document of its own; NULL: there is none, or it is null. */
extern Jsonb *jq_json_member(Jsonb *object, const char *key);

/* Whether a document is an object, and whether it is a string. */
extern bool jq_json_is_object(Jsonb *document);
extern bool jq_json_is_string(Jsonb *document);

/* The text of a document that is a string. */
extern char *jq_json_root_text(Jsonb *document);

/* An object member by member; the state is NULL at first. */
extern void jq_json_begin(JsonbParseState **state);
extern void jq_json_put_key(JsonbParseState **state, const char *key);
extern void jq_json_put_text(JsonbParseState **state, const char *key,
							 const char *value);
extern void jq_json_put_text_len(JsonbParseState **state, const char *key,
								 const char *value, size_t len);
extern void jq_json_put_integer(JsonbParseState **state, const char *key,
								int64 value);
extern void jq_json_put_ms(JsonbParseState **state, const char *key,
						   int64 microseconds);
extern void jq_json_put_bool(JsonbParseState **state, const char *key,
							 bool value);
extern void jq_json_put(JsonbParseState **state, const char *key,
						Jsonb *value);
extern Jsonb *jq_json_end(JsonbParseState **state);

/* Adds a document to an array, or after a key. */
extern void jq_json_push(JsonbParseState **state, JsonbIteratorToken token,
						 Jsonb *value);

#endif							/* JQ_JSON_H */
