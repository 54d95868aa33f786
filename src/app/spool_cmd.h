/* `tailrace spool verify|stats|export`: look into a spool, whether a gateway runs on it or not. */
#ifndef TR_APP_SPOOL_CMD_H
#define TR_APP_SPOOL_CMD_H

/*
 * `argv` begins with "spool". Prints to standard output, errors to standard error. Returns the exit
 * status:
 *
 *   0  it was done; verify: the spool is sound; export: everything was written
 *   1  verify: something is wrong, each on a line of its own; export: something could not be read;
 *      or the spool cannot be opened at all
 *   2  usage
 */
int spool_cmd(int argc, char **argv);

#endif
