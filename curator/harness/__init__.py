"""The program that runs inside an image, as the text that `curator.smoke` assembles.

It travels as text (`python3 -c TEXT`), so it is in no image and changes no digest: these modules
one behind the other, then a framework's probe, then what is expected, then a call of `main`.
Standard library only, and syntax of Python 3.8, since it runs on whatever Python an image has.

- Each check runs in a forked child with a deadline: a crash, a hang or an exit is a failure of that
  check, and what a check prints goes to stderr and cannot become part of the report.
- The parent alone writes the report, one line that begins with the run's nonce.
- Facts are strings, whole numbers, and lists and objects of them.
- Names are shared: the modules become one namespace, so no two of them define the same name.
"""
