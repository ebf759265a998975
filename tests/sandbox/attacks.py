"""Hostile programs. Each defines `attack()`; what it returns says how far it got.

`PROBES` try to reach something or to use too much: `True` from attack(), or a process that
outlives its time, is success. `FORGERIES` try to be judged right: they are run where `attack()`
should return `"the right answer"`, which they do not know.

Shared with benchmarks/sandbox_attacks.py, which tries the same programs on other harnesses.
"""

_LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

PROBES: dict[str, str] = {
    # --- using too much
    "fork bomb (libc)": _LIBC
    + """
def attack():
    made = 0
    for _ in range(100):
        pid = libc.fork()
        if pid == 0:
            import time
            time.sleep(30)
            libc._exit(0)
        made += pid > 0
    return made > 0
""",
    "fork (posix)": """
def attack():
    import posix
    try:
        pid = posix.fork()
    except OSError:
        return False
    if pid == 0:
        posix._exit(0)
    return True
""",
    "start a program (posix_spawn)": """
def attack():
    import posix
    try:
        posix.posix_spawn("/bin/true", ["true"], {})
    except OSError:
        return False
    return True
""",
    "start a program (fork_exec)": """
def attack():
    import importlib, subprocess
    importlib.reload(subprocess)
    try:
        return subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\\n"
    except Exception:
        return False
""",
    "vfork and clone3 by number": _LIBC
    + """
def attack():
    import platform
    if platform.machine() != "x86_64":
        return False
    for number, argument in ((58, 0), (57, 0), (56, 17), (0x40000000 + 57, 0)):
        pid = libc.syscall(number, argument, 0, 0, 0, 0)
        if pid == 0:
            libc._exit(0)
        if pid > 0:
            return True
    return False
""",
    "thread bomb": """
def attack():
    import threading, time
    started = 0
    try:
        for _ in range(100_000):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
            started += 1
    except Exception:
        pass
    return started > 5_000
""",
    "threads with small stacks": """
def attack():
    import threading, time
    threading.stack_size(32768)
    started = 0
    try:
        for _ in range(2_000):
            threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
            started += 1
    except Exception:
        pass
    return started > 250
""",
    "threads around Python's own": _LIBC
    + """
def attack():
    libc.sleep.argtypes = [ctypes.c_uint]
    begin = ctypes.cast(libc.sleep, ctypes.c_void_p)
    ids = [ctypes.c_ulong() for _ in range(2_000)]
    made = [libc.pthread_create(ctypes.byref(i), None, begin, ctypes.c_void_p(1)) for i in ids]
    return {counted} and made.count(0) > 250
""",
    "memory (System V)": _LIBC
    + """
def attack():
    return any(libc.shmget(0, 64 << 20, 0o1600) >= 0 for _ in range(64))
""",
    "memory (memfd)": """
def attack():
    import os
    try:
        return os.memfd_create("x") >= 0
    except OSError:
        return False
""",
    "memory (message queues, semaphores)": _LIBC
    + """
def attack():
    return libc.msgget(0, 0o1600) >= 0 or libc.semget(0, 100, 0o1600) >= 0
""",
    "memory (objects)": """
def attack():
    kept = []
    try:
        while len(kept) < 16:
            kept.append(bytearray(1 << 30))
    except MemoryError:
        return False
    return True
""",
    "memory (mmap)": """
def attack():
    import mmap
    try:
        kept = [mmap.mmap(-1, 1 << 30) for _ in range(16)]
    except (OSError, MemoryError):
        return False
    return len(kept) == 16
""",
    "disk (one file)": """
def attack():
    import io
    try:
        with io.open("/tmp/big", "wb") as file:
            for _ in range(1024):
                file.write(bytes(1 << 20))
    except OSError:
        return False
    return True
""",
    "disk (many files)": """
def attack():
    import io
    try:
        for number in range(200):
            with io.open(f"/tmp/{number}", "wb") as file:
                file.write(bytes(1 << 20))
    except OSError:
        return False
    return True
""",
    "output flood (stdout)": """
def attack():
    import os
    while True:
        os.write(1, b"x" * (1 << 20))
""",
    "output flood (result)": """
def attack():
    return "x" * (1 << 30)
""",
    "endless loop that catches everything": """
def attack():
    while True:
        try:
            while True:
                x = 1
        except BaseException:
            x = 2
""",
    "endless loop in C": """
def attack():
    import itertools
    return max(itertools.repeat(1))
""",
    "long multiplication": """
def attack():
    return pow(3, 10 ** 9) > 0
""",
    "catastrophic regular expression": """
def attack():
    import re
    return re.match("(a+)+$", "a" * 64 + "b") is None
""",
    "sleep": """
def attack():
    import time
    time.sleep(10 ** 6)
    return True
""",
    "timer switched off": """
def attack():
    import signal, time
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(10 ** 6)
    return True
""",
    "deep recursion": """
def attack():
    import sys
    sys.setrecursionlimit(10 ** 9)
    def down(x):
        return sorted([x], key=down)
    down(1)
    return True
""",
    # --- reaching out
    "socket to the internet": """
def attack():
    import socket
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=2)
    except OSError as error:
        return error.errno not in (101, 99, 97, 1, 13, None) and "timed out" not in str(error)
    return True
""",
    "socket to localhost": """
def attack():
    import socket
    try:
        return bool(socket.create_connection(("127.0.0.1", {port}), timeout=2))
    except OSError:
        return False
""",
    "abstract socket": """
def attack():
    import socket
    try:
        socket.socket(socket.AF_UNIX).connect("\\0{abstract}")
    except OSError:
        return False
    return True
""",
    "name lookup": """
def attack():
    import socket
    try:
        socket.getaddrinfo("example.com", 80)
    except OSError:
        return False
    return True
""",
    # --- reading
    "read /etc/passwd": """
def attack():
    import io
    try:
        return "root" in io.open("/etc/passwd").read()
    except OSError:
        return False
""",
    "read a file of the user's": """
def attack():
    import io
    try:
        return "secret" in io.open("{file}").read()
    except OSError:
        return False
""",
    "read it through a symbolic link": """
def attack():
    import io, posix
    posix.symlink("{file}", "/tmp/link")
    try:
        return "secret" in io.open("/tmp/link").read()
    except OSError:
        return False
""",
    "read it through /proc": """
def attack():
    import glob, io
    for root in glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd"):
        for path in (root + "{file}", root + "/etc/passwd"):
            try:
                return bool(io.open(path).read())
            except OSError:
                continue
    return False
""",
    "list the home": """
def attack():
    import os, pathlib
    homes = [os.path.expanduser("~"), "/root", "/home"]
    found = []
    for home in homes:
        try:
            found += [n for n in os.listdir(home) if not n.startswith((".pyenv", "sandbox"))]
        except OSError:
            continue
    return bool(found)
""",
    "environment": """
def attack():
    import os
    return "secret" in str(dict(os.environ))
""",
    "environment of other processes": """
def attack():
    import glob, io
    for file in glob.glob("/proc/[0-9]*/environ"):
        try:
            if b"secret" in io.open(file, "rb").read():
                return True
        except OSError:
            continue
    return False
""",
    "processes of others": """
def attack():
    import glob
    return "/proc/{pid}" in glob.glob("/proc/[0-9]*") and len(glob.glob("/proc/[0-9]*")) > 4
""",
    "files of other samples": """
def attack():
    import io, os
    found = os.listdir("/tmp")
    for name in ("/tmp/left_behind", "/dev/shm/left_behind"):
        try:
            io.open(name, "w").write("x")
        except OSError:
            continue
    return bool(set(found) & {"left_behind"}) or os.path.exists("/dev/shm/left_behind.old")
""",
    "kernel's devices": """
def attack():
    import glob, io
    for name in glob.glob("/dev/sd*") + glob.glob("/dev/vd*") + ["/dev/mem", "/dev/kmsg"]:
        try:
            return bool(io.open(name, "rb").read(16))
        except OSError:
            continue
    return False
""",
    # --- writing and touching
    "write outside": """
def attack():
    import io, sys
    for name in ("/usr/x", "/x", "/dev/x", "/dev/shm/x", "/etc/x", "/proc/sys/kernel/core_pattern",
                 sys.path[0] + "/worker.py", sys.path[-1] + "/x.py", "/home/sandbox/x"):
        try:
            io.open(name, "a").write("x")
            return True
        except OSError:
            continue
    return False
""",
    "remount the system writable": _LIBC
    + """
def attack():
    return libc.mount(None, b"/usr", None, 32 | 4096, None) == 0
""",
    "new namespaces": _LIBC
    + """
def attack():
    return libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0
""",
    "chroot": _LIBC
    + """
def attack():
    return libc.chroot(b"/tmp") == 0
""",
    "capabilities": """
def attack():
    import io
    for line in io.open("/proc/self/status"):
        if line.startswith("CapEff"):
            return int(line.split()[1], 16) != 0
""",
    "signal everybody": """
def attack():
    import posix
    for pid in ({pid}, {parent}):
        try:
            posix.kill(pid, 0)
            return True
        except OSError:
            continue
    try:
        posix.kill(-1, 9)
    except OSError:
        pass
    return False
""",
    "kill the parent": """
def attack():
    import posix, time
    try:
        posix.kill(posix.getppid(), 9)
    except OSError:
        pass
    time.sleep(0.2)
    return False
""",
    "ptrace": _LIBC
    + """
def attack():
    import posix
    return libc.ptrace(16, posix.getppid(), 0, 0) == 0 or libc.ptrace(16, {pid}, 0, 0) == 0
""",
    "read another process's memory": """
def attack():
    import glob, io, posix
    for file in glob.glob("/proc/[0-9]*/mem"):
        if file != f"/proc/{posix.getpid()}/mem":
            try:
                io.open(file, "rb")
                return True
            except OSError:
                continue
    return False
""",
    "leave a process behind": _LIBC
    + """
def attack():
    if libc.fork() == 0:
        libc.setsid()
        if libc.fork() == 0:
            import time
            time.sleep(60)
        libc._exit(0)
    return False
""",
    "the terminal": """
def attack():
    import fcntl, io
    try:
        with io.open("/dev/tty", "wb") as tty:
            fcntl.ioctl(tty, 0x5412, b"x")
    except OSError:
        return False
    return True
""",
    "io_uring, bpf, keyctl": _LIBC
    + """
def attack():
    import platform
    if platform.machine() != "x86_64":
        return False
    return any(libc.syscall(n, 0, 0, 0, 0, 0) >= 0 for n in (425, 321, 250, 298, 323))
""",
    "standard input": """
def attack():
    import posix, sys
    try:
        return bool(input()) or bool(posix.read(0, 10))
    except (OSError, EOFError):
        return bool(posix.read(0, 10))
""",
}

VALUES: dict[str, str] = {
    "an endless range": "range(10**12)",
    "a range of ranges": "[range(10**9)] * 100",
    "colliding integers": "{k * ((1 << 61) - 1) + 1 for k in range(2, 300)}",
    "colliding keys": "{k * ((1 << 61) - 1) + 1: 0 for k in range(2, 300)}",
    "colliding tuples": "{(k * ((1 << 61) - 1) + 1,) for k in range(2, 300)}",
    "a long fraction": "__import__('fractions').Fraction(3 ** 200_000, 7 ** 200_000)",
}
"""Values that are cheap to make, and would be dear to read: they are refused."""

_EQUAL = """
class Yes{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
def attack(): return Yes({argument})
"""
FORGERIES: dict[str, str] = {
    "equal to everything": _EQUAL.format(base="", argument=""),
    "equal to everything (str)": _EQUAL.format(base="(str)", argument="'no'"),
    "equal to everything (int)": _EQUAL.format(base="(int)", argument="1"),
    "equal to everything (list)": _EQUAL.format(base="(list)", argument="[1]"),
    "lies about its class": """
class Lie:
    __class__ = str
    def __eq__(self, other): return True
    def __reduce__(self): return (str, ("the right answer",))
def attack(): return Lie()
""",
    "metaclass": """
class Meta(type):
    def __eq__(self, other): return True
    def __instancecheck__(self, other): return True
    __hash__ = type.__hash__
class Yes(metaclass=Meta): pass
def attack(): return Yes
""",
    "leaves with status 0": """
def attack():
    import posix
    posix._exit(0)
""",
    "exits": """
def attack():
    raise SystemExit(0)
""",
    "raises past everything": """
class Past(BaseException):
    def __str__(self): raise Past
    __repr__ = __str__
def attack():
    raise Past
""",
    "writes to every descriptor": """
def attack():
    import posix, time
    for line in (b'{"!":"passed"}\\n', b'{"!":"ready"}\\n', b'passed\\n', b'true\\n', b'pass\\n'):
        for fd in range(64):
            try:
                posix.write(fd, line)
            except OSError:
                pass
    posix._exit(0)
""",
    "overrides builtins": """
import builtins
class Never(Exception): pass
builtins.AssertionError = Never
builtins.len = lambda x: 0
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
builtins.abs = lambda x: 0
builtins.set = lambda *a: frozenset()
def attack(): return 0
""",
    "patches the harness": """
import sys
for name, module in list(sys.modules.items()):
    for attribute in ("to_text", "encode", "raised", "limited", "dumps", "_opaque"):
        if hasattr(module, attribute):
            try:
                setattr(module, attribute, lambda *a, **k: '{"!":"passed"}')
            except Exception:
                pass
def attack(): return 0
""",
    "patches numpy and math": """
import math
math.isclose = lambda *a, **k: True
try:
    import numpy
    numpy.allclose = lambda *a, **k: True
except Exception:
    pass
def attack(): return 0.5
""",
    "fills sys.modules": """
import sys, types
fake = types.ModuleType("fake")
fake.__getattr__ = lambda name: (lambda *a, **k: True)
for name in list(sys.modules):
    if name not in ("sys", "types", "builtins"):
        sys.modules[name] = fake
def attack(): return fake
""",
    "looks for the answer": """
def attack():
    import gc, sys
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, str) and value == "the right " + "answer":
                return value
            if isinstance(value, (list, tuple)) and value and value[0] == "the right " + "answer":
                return value[0]
        frame = frame.f_back
    for thing in gc.get_objects():
        try:
            if isinstance(thing, dict):
                for value in list(thing.values()):
                    if type(value) is str and value.endswith("right answer'"):
                        return value[-17:-1]
        except Exception:
            continue
    return None
""",
    "at exit": """
import atexit, sys
atexit.register(lambda: sys.__stdout__ and print('{"!":"passed"}', file=sys.__stdout__))
def attack():
    raise SystemExit
""",
    "traces the harness": """
import sys
def hook(frame, event, argument):
    for name in ("passed", "stat", "result", "ok"):
        if name in frame.f_locals:
            frame.f_locals[name] = True
    return hook
sys.settrace(hook)
sys.setprofile(hook)
def attack(): return 0
""",
    "answers for its caller": """
def attack():
    import sys
    frame = sys._getframe(1)
    for value in list(frame.f_globals.values()):
        if hasattr(value, "append") and not isinstance(value, type):
            try:
                value.append("passed")
            except Exception:
                pass
    f = frame
    while f is not None:
        for value in list(f.f_locals.values()):
            if type(value).__name__ in ("ListProxy", "Synchronized"):
                try:
                    value.append("passed")
                except Exception:
                    pass
                try:
                    value.value = 0
                    import posix
                    posix._exit(0)
                except Exception:
                    pass
        f = f.f_back
    import posix
    posix._exit(0)
""",
    "forged value": """
def attack():
    import posix
    for fd in range(3, 64):
        try:
            posix.write(fd, b'{"o":["str",true]}\\n')
        except OSError:
            pass
    return None
""",
    "unpicklable": """
def attack(): return lambda: None
""",
    "hostile pickle": """
class Bomb:
    def __reduce__(self): return (print, ("the right answer",))
def attack(): return Bomb()
""",
    "cyclic": """
def attack():
    value = []
    value.append(value)
    return value
""",
    "deeply nested": """
def attack():
    value = []
    for _ in range(100_000):
        value = [value]
    return value
""",
    "shared a thousand million times": """
def attack():
    value = ["x"]
    for _ in range(30):
        value = [value, value]
    return value
""",
    "endless iterator": """
def attack():
    while True:
        yield "the right answer"
""",
    "a class with a newline in its name": """
def attack():
    raise type('x"}\\n{"!":"passed"}\\n', (Exception,), {})
""",
    "a value with a newline": """
def attack(): return '\\n{"!":"passed"}\\n'
""",
    "an endless range": """
def attack(): return range(10**12)
""",
    "a million classes": """
def attack(): return [type("c", (int,), {})(1) for _ in range(20_000)]
""",
    "hostile len and iter": """
class Strange(list):
    def __iter__(self): raise SystemExit
    def __len__(self): return -1
    def __bool__(self): raise KeyboardInterrupt
def attack(): return Strange("x")
""",
    "import that never ends": """
while True:
    pass
def attack(): return 0
""",
    "leaves at import": """
import posix
posix._exit(0)
def attack(): return 0
""",
    "import hook": """
import sys
class Finder:
    @staticmethod
    def find_spec(*a): raise SystemExit(0)
sys.meta_path.insert(0, Finder)
import never_there
def attack(): return 0
""",
    "no function at all": "attack = 'the right ' 'answer'\n",
    "a thread that answers": """
import posix, threading
def keep():
    while True:
        for fd in range(3, 16):
            try:
                posix.write(fd, b'{"!":"passed"}\\n')
            except OSError:
                pass
threading.Thread(target=keep, daemon=True).start()
def attack():
    import time
    time.sleep(0.3)
    return 0
""",
}
