/*-------------------------------------------------------------------------
 *
 * receive.c
 *	  What a client sends, until it is a complete request.
 *
 * Its size is bounded before it is read, where the library lets us, or while
 * it is.  What two readers could take for requests of different length is
 * refused, with the rest of the connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http/receive.h"

#define MAX_TARGET 4096
#define MAX_PARAMETERS 256		/* for each the library takes some of it */
#define MAX_BODY (256 * 1024)
#define FIRST_BODY_ROOM 4096

/* How many headers say where a request ends. */
typedef struct Framing
{
	int			lengths;
	int			encodings;
} Framing;

static int	count_parameters(const char *target);
static enum MHD_Result begin_reading(JqHttpConnection *connection,
									 const char *method);
static enum MHD_Result note_header(void *arg, enum MHD_ValueKind kind,
								   const char *name, size_t name_size,
								   const char *value, size_t value_size);
static enum MHD_Result note_framing(void *arg, enum MHD_ValueKind kind,
									const char *name, size_t name_size,
									const char *value, size_t value_size);
static bool is_large(const char *length);
static enum MHD_Result refuse(JqHttpConnection *connection, int status);
static enum MHD_Result take_body(JqHttpConnection *connection, const char *data,
								 size_t *size);
static enum MHD_Result send_answer(JqHttpConnection *connection);

JqHttpConnection *
jq_http_connection_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
	MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info == NULL ? NULL : (JqHttpConnection *) info->socket_context;
}

void
jq_http_call_forget(JqHttpConnection *connection)
{
	free(connection->target);
	free(connection->body);
	if (connection->response != NULL)
		MHD_destroy_response(connection->response);
	connection->target = NULL;
	connection->body = NULL;
	connection->body_room = 0;
	connection->response = NULL;
	connection->is_long = false;
	connection->state = JQ_CALL_NONE;
	memset(&connection->call, 0, sizeof(connection->call));
}

void *
jq_http_receive_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
	JqHttpConnection *connection = jq_http_connection_of(mhd);

	if (connection == NULL || connection->state == JQ_CALL_WAITING)
		return NULL;
	jq_http_call_forget(connection);
	connection->is_long = strlen(target) > MAX_TARGET ||
		count_parameters(target) > MAX_PARAMETERS;
	if (!connection->is_long)
		connection->target = strdup(target);
	connection->state = JQ_CALL_STARTED;
	return connection;
}

static int
count_parameters(const char *target)
{
	int			count = 1;

	for (; *target != '\0'; target++)
		count += *target == '&';
	return count;
}

size_t
jq_http_receive_escaped(void *cls, struct MHD_Connection *mhd, char *string)
{
	return strlen(string);
}

enum MHD_Result
jq_http_receive(void *cls, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *data,
				size_t *size, void **context)
{
	JqHttpConnection *connection = jq_http_connection_of(mhd);

	if (connection == NULL)
		return MHD_NO;
	switch (connection->state)
	{
		case JQ_CALL_STARTED:
			return begin_reading(connection, method);
		case JQ_CALL_READING:
			if (*size > 0)
				return take_body(connection, data, size);
			connection->call.target = connection->target;
			connection->call.body = connection->body;
			connection->call.client = connection->client;
			connection->state = JQ_CALL_WAITING;
			connection->deadline = PG_INT64_MAX;
			dlist_push_tail((dlist_head *) cls, &connection->waiting_node);
			MHD_suspend_connection(mhd);
			return MHD_YES;
		case JQ_CALL_OVER:
			*size = 0;
			return MHD_YES;
		case JQ_CALL_ANSWERED:
			return send_answer(connection);
		case JQ_CALL_NONE:
		case JQ_CALL_WAITING:
		case JQ_CALL_LOST:
			break;
	}
	return MHD_NO;				/* closes the connection */
}

static enum MHD_Result
begin_reading(JqHttpConnection *connection, const char *method)
{
	Framing		framing = {0};
	const char *length;

	if (connection->is_long)
		return refuse(connection, MHD_HTTP_URI_TOO_LONG);
	if (connection->target == NULL)
		return MHD_NO;
	(void) MHD_get_connection_values_n(connection->mhd, MHD_HEADER_KIND,
									   note_framing, &framing);
	if (framing.lengths + framing.encodings > 1)
		return refuse(connection, MHD_HTTP_BAD_REQUEST);
	length = MHD_lookup_connection_value(connection->mhd, MHD_HEADER_KIND,
										 "Content-Length");
	if (length != NULL && is_large(length))
		return refuse(connection, MHD_HTTP_CONTENT_TOO_LARGE);
	connection->call.method = method;
	(void) MHD_get_connection_values_n(connection->mhd, MHD_HEADER_KIND,
									   note_header, connection);
	connection->state = JQ_CALL_READING;
	return MHD_YES;
}

/*
 * Two headers may say different things of where the body ends, and a proxy may
 * believe the one that the library does not: so at most one is taken.
 */
static enum MHD_Result
note_framing(void *arg, enum MHD_ValueKind kind, const char *name,
			 size_t name_size, const char *value, size_t value_size)
{
	Framing    *framing = (Framing *) arg;

	framing->lengths += pg_strcasecmp(name, "Content-Length") == 0;
	framing->encodings += pg_strcasecmp(name, "Transfer-Encoding") == 0;
	return MHD_YES;
}

static bool
is_large(const char *length)
{
	return strtoull(length, NULL, 10) > MAX_BODY;
}

/* Keeps the few headers that matter. */
static enum MHD_Result
note_header(void *arg, enum MHD_ValueKind kind, const char *name,
			size_t name_size, const char *value, size_t value_size)
{
	JqHttpCall *call = &((JqHttpConnection *) arg)->call;
	struct
	{
		const char *name;
		const char **value;
	}			headers[] = {
		{"Host", &call->host},
		{"Origin", &call->origin},
		{"Authorization", &call->authorization},
		{"Content-Type", &call->content_type},
		{"Accept", &call->accept},
		{"Sec-Fetch-Site", &call->fetch_site},
		{"Sec-Fetch-Mode", &call->fetch_mode}
	};

	for (int i = 0; i < (int) lengthof(headers); i++)
	{
		if (pg_strcasecmp(name, headers[i].name) != 0)
			continue;
		if (*headers[i].value == NULL && value != NULL &&
			strlen(value) == value_size)
			*headers[i].value = value;
		else if (headers[i].value != &call->accept)
			call->is_ambiguous = true;
	}
	return MHD_YES;
}

/* Answers before the body has come, and closes the connection afterwards. */
static enum MHD_Result
refuse(JqHttpConnection *connection, int status)
{
	struct MHD_Response *response;
	enum MHD_Result result = MHD_NO;

	response = MHD_create_response_from_buffer(0, NULL,
											   MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	if (MHD_add_response_header(response, "JqHttpConnection", "close") == MHD_YES)
		result = MHD_queue_response(connection->mhd, status, response);
	MHD_destroy_response(response);
	connection->state = JQ_CALL_OVER;
	return result;
}

/*
 * A body of unknown length may turn out to be too large only here, where the
 * library takes no answer: so the rest of it is read, as long as it may take.
 */
static enum MHD_Result
take_body(JqHttpConnection *connection, const char *data, size_t *size)
{
	JqHttpCall *call = &connection->call;
	size_t		room = connection->body_room;

	if (*size > MAX_BODY - call->body_size)
		call->is_large = true;
	if (call->is_large)
	{
		*size = 0;
		return MHD_YES;
	}
	if (room == 0)
		room = FIRST_BODY_ROOM;
	while (room < call->body_size + *size)
		room *= 2;
	if (room > connection->body_room)
	{
		char	   *body = realloc(connection->body, room);

		if (body == NULL)
			return MHD_NO;
		connection->body = body;
		connection->body_room = room;
	}
	memcpy(connection->body + call->body_size, data, *size);
	call->body_size += *size;
	*size = 0;
	return MHD_YES;
}

static enum MHD_Result
send_answer(JqHttpConnection *connection)
{
	enum MHD_Result result =
	MHD_queue_response(connection->mhd, connection->status,
					   connection->response);

	MHD_destroy_response(connection->response);
	connection->response = NULL;
	connection->state = JQ_CALL_OVER;
	return result;
}
