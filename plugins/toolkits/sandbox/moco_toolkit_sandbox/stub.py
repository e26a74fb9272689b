"""The first code that runs inside the sandbox: it limits itself, then becomes the program.

It is handed to the interpreter as text (``python -c``), reads one JSON job from standard input and uses the standard
library only. It reports on standard output, each report on a line of its own behind a random token: ``{"start": true}``
before the program runs, then ``{"passed": true}`` if the program's end was reached, or the error that ended it. An exit
code proves nothing, since any program can choose its own.
"""

import contextlib
import json
import os
import resource
import sys


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    token = job.pop("token")
    write, leave, dump = os.write, os._exit, json.dumps
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115

    def report(**data: object) -> None:
        write(out, ("\n" + token + dump(data) + "\n").encode())

    out = os.dup(1)
    for name, value in job["rlimits"].items():
        number = getattr(resource, name, None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    if job["uid"]:  # privileges that were needed to get here are given up for good
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    os.umask(0o077)
    sys.argv = ["program.py"]
    program, name = job.pop("program"), "program.py"
    scope = {"__name__": "__main__", "__file__": name, "__builtins__": __builtins__, "__doc__": None}
    job.clear()
    report(start=True)
    try:
        exec(compile(program, name, "exec", dont_inherit=True), scope)
    except BaseException as error:
        kind, text = type(error).__name__, ""
        try:
            frame, line = error.__traceback__, 0
            while frame is not None:
                if frame.tb_frame.f_code.co_filename == name:
                    line = frame.tb_lineno
                frame = frame.tb_next
            text = str(error)[:400] + (f" (line {line})" if line else "")
        except BaseException:
            pass
        report(error=kind, detail=text)
        leave(1)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    report(passed=True)
    leave(0)


main()
