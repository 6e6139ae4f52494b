/*-------------------------------------------------------------------------
 *
 * secret_file.c
 *	  Secrets in files of the server.
 *
 * A file holds the value in its first line and, while it changes, the previous
 * value in its second.  What starts like a PEM file is one value as a whole.
 * What is checked is the open file, not the name; a symbolic link is refused,
 * because whoever may place one need not be allowed to read where it leads.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "mb/pg_wchar.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "queue/secret_file.h"

#define PEM_BEGIN "-----BEGIN "

static bool has_changed(const struct stat *was, const struct stat *is);
static const char *read_file(const char *path, JqSecretFile *file,
							 JqSecret *secret, MemoryContext context);
static const char *check_stat(const struct stat *file);
static const char *parse(char *content, ssize_t length, JqSecret *secret,
						 MemoryContext context);
static const char *take_value(const char *line, char **value,
							  MemoryContext context);
static void strip_end_of_line(char *line);

const char *
jq_secret_file_read(const char *path, JqSecretFile *file, JqSecret *secret,
					MemoryContext context)
{
	struct stat now;
	const char *problem;

	if (file->is_read && lstat(path, &now) == 0 &&
		!has_changed(&file->stamp, &now))
		return NULL;
	file->is_read = false;
	jq_secret_wipe(secret);
	problem = read_file(path, file, secret, context);
	if (problem != NULL)
		jq_secret_wipe(secret);
	else
		file->is_read = true;
	return problem;
}

/* The time of the last change also tells of another owner or mode. */
static bool
has_changed(const struct stat *was, const struct stat *is)
{
	return was->st_dev != is->st_dev || was->st_ino != is->st_ino ||
		was->st_size != is->st_size || was->st_mode != is->st_mode ||
		was->st_mtim.tv_sec != is->st_mtim.tv_sec ||
		was->st_mtim.tv_nsec != is->st_mtim.tv_nsec ||
		was->st_ctim.tv_sec != is->st_ctim.tv_sec ||
		was->st_ctim.tv_nsec != is->st_ctim.tv_nsec;
}

static const char *
read_file(const char *path, JqSecretFile *file, JqSecret *secret,
		  MemoryContext context)
{
	char		content[JQ_SECRET_MAX_LENGTH + 2];
	const char *problem;
	ssize_t		length;
	int			fd;

	/* Somebody's pipe must not make us wait. */
	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ELOOP ? "is a symbolic link" :
			psprintf("cannot be opened: %s", strerror(errno));
	if (fstat(fd, &file->stamp) != 0)
		problem = psprintf("cannot be examined: %s", strerror(errno));
	else
		problem = check_stat(&file->stamp);
	if (problem == NULL)
	{
		length = read(fd, content, sizeof(content) - 1);
		if (length < 0)
			problem = psprintf("cannot be read: %s", strerror(errno));
		else
			problem = parse(content, length, secret, context);
		explicit_bzero(content, sizeof(content));
	}
	(void) CloseTransientFile(fd);
	return problem;
}

static const char *
check_stat(const struct stat *file)
{
	if (!S_ISREG(file->st_mode))
		return "is not a regular file";
	if (file->st_uid != geteuid())
		return "does not belong to the user that the server runs as";
	if ((file->st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "can be used by others than its owner";
	if (file->st_size > JQ_SECRET_MAX_LENGTH)
		return psprintf("is longer than %d bytes", JQ_SECRET_MAX_LENGTH);
	return NULL;
}

/* Changes content, which has room for one more byte. */
static const char *
parse(char *content, ssize_t length, JqSecret *secret, MemoryContext context)
{
	const char *problem;
	char	   *second;

	if (length > JQ_SECRET_MAX_LENGTH)
		return psprintf("is longer than %d bytes", JQ_SECRET_MAX_LENGTH);
	if (memchr(content, '\0', length) != NULL ||
		!pg_verifymbstr(content, length, true))
		return "is not text in the encoding of the database";
	content[length] = '\0';
	strip_end_of_line(content);
	if (strncmp(content, PEM_BEGIN, strlen(PEM_BEGIN)) == 0)
		return take_value(content, &secret->value, context);

	second = strchr(content, '\n');
	if (second != NULL)
	{
		*second++ = '\0';
		if (strchr(second, '\n') != NULL)
			return "has more than two lines";
		strip_end_of_line(content);
		problem = take_value(second, &secret->previous, context);
		if (problem != NULL)
			return problem;
	}
	return take_value(content, &secret->value, context);
}

static const char *
take_value(const char *line, char **value, MemoryContext context)
{
	if (line[0] == '\0')
		return "is empty, or one of its lines is";
	*value = MemoryContextStrdup(context, line);
	return NULL;
}

/* Of whichever system. */
static void
strip_end_of_line(char *line)
{
	size_t		length = strlen(line);

	if (length > 0 && line[length - 1] == '\n')
		line[--length] = '\0';
	if (length > 0 && line[length - 1] == '\r')
		line[--length] = '\0';
}
