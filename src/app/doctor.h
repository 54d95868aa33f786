/* `tailrace doctor`: does every flow of the deployment work from this host, and if not, why, and
 * who must change what? */
#ifndef TR_APP_DOCTOR_H
#define TR_APP_DOCTOR_H

/*
 * `argv` begins with "doctor". Prints to standard output, errors to standard error. Listens to
 * nothing, writes to no spool, and changes nothing in a gateway that runs. Returns the exit status:
 *
 *   0  all that was looked at works, perhaps with warnings
 *   1  something is broken
 *   2  usage
 */
int doctor_cmd(int argc, char **argv);

#endif
