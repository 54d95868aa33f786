# TR_TRY_CFLAGS(FLAGS, VARIABLE): append FLAGS to VARIABLE if the compiler accepts all of them.
AC_DEFUN([TR_TRY_CFLAGS], [
  AC_MSG_CHECKING([whether the compiler accepts $1])
  tr_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS -Werror $1"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
    [AC_MSG_RESULT([yes]); $2="$$2 $1"], [AC_MSG_RESULT([no])])
  CFLAGS=$tr_save_CFLAGS
])
