/*-------------------------------------------------------------------------
 *
 * secret_file.h
 *	  Secrets in files of the server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JQ_SECRET_FILE_H
#define JQ_SECRET_FILE_H

#include "postgres.h"

#include <sys/stat.h>

#include "queue/secrets.h"

/* A file as it was when it was read. */
typedef struct JqSecretFile
{
	bool		is_read;
	struct stat stamp;
} JqSecretFile;

/*
 * Brings "secret" up to date with a file; reads it only when it has changed
 * since "file" was filled in.  Returns NULL, or in the current context what is
 * wrong with the file, as in "is readable by others"; then secret is wiped.
 * New values are allocated in the given context.
 */
extern const char *jq_secret_file_read(const char *path, JqSecretFile *file,
									   JqSecret *secret,
									   MemoryContext context);

#endif							/* JQ_SECRET_FILE_H */
