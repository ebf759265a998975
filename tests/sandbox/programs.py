"""Programs and tests as users bring them: what plain Python says of them is the verdict.

Source of the form: openai/human-eval (a test is `check(candidate)`).
"""

CASES: dict[str, tuple[str, str, str]] = {
    "assertRaises": (
        "",
        """def f(x):
    raise ValueError('neg')
""",
        """def check(candidate):
    import unittest
    with unittest.TestCase().assertRaises(ValueError) as c:
        candidate(-1)
    assert str(c.exception)=='neg'
    assert c.exception.args==('neg',)
""",
    ),
    "custom exc": (
        "",
        """class MyError(ValueError):
    def __init__(self, m, code):
        super().__init__(m)
        self.code=code
def f(x):
    raise MyError('bad', 7)
""",
        """def check(candidate):
    try:
        candidate(1)
    except MyError as e:
        assert e.code == 7 and str(e)=='bad'
    else:
        assert False
""",
    ),
    "custom exc by base": (
        "",
        """class MyError(ValueError):
    def __str__(self): return 'oh 7'
def f(x):
    raise MyError(7)
""",
        """def check(candidate):
    try:
        candidate(1)
    except ValueError as e:
        assert str(e)=='oh 7'
    else:
        assert False
""",
    ),
    "nested in place": (
        "",
        """def f(x):
    x[0].append(9)
""",
        """def check(candidate):
    a=[[1,2],[3]]
    candidate(a)
    assert a==[[1,2,9],[3]]
    b={'k':[1]}
    candidate([b['k']])
    assert b=={'k':[1,9]}
""",
    ),
    "in place dict set": (
        "",
        """def f(x):
    x[0]['a']=1
    x[1].add(2)
""",
        """def check(candidate):
    d={}
    s={1}
    candidate((d,s))
    assert d=={'a':1} and s=={1,2}
""",
    ),
    "same object": (
        "",
        """def f(x):
    x.sort(); return x
""",
        """def check(candidate):
    a=[3,1]
    assert candidate(a) is a
""",
    ),
    "alias": (
        "",
        """k=[]
def f(x):
    k.clear(); k.extend(x); return k
def get(): return k
""",
        """def check(candidate):
    r=candidate([1])
    r.append(5)
    assert get()==[1,5]
""",
    ),
    "callback raises": (
        "",
        """def f(g):
    return g()
""",
        """def check(candidate):
    try:
        candidate(lambda: 1/0)
    except ZeroDivisionError:
        pass
    else: assert False
""",
    ),
    "callback counts": (
        "",
        """def f(g):
    for i in range(3): g(i)
""",
        """def check(candidate):
    calls=[]
    candidate(lambda v: calls.append(v))
    assert calls==[0,1,2]
""",
    ),
    "decorator": (
        "",
        """def f(g):
    def w(*a,**k):
        return 2*g(*a,**k)
    return w
""",
        """def check(candidate):
    @candidate
    def g(a,b=2):
        return a*b
    assert g(3)==12 and g(3,b=5)==30
""",
    ),
    "class api": (
        """class f:
    pass
""",
        """class f:
    def __init__(self): self.items=[]
    def push(self,x): self.items.append(x)
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
""",
        """def check(candidate):
    s=candidate()
    assert len(s)==0
    s.push(1)
    s.push(2)
    assert len(s)==2 and s.items==[1,2] and list(s)==[1,2]
    assert isinstance(s,candidate)
    assert type(s) is candidate
""",
    ),
    "class operators": (
        """class f:
    pass
""",
        """class f:
    def __init__(self,v): self.v=v
    def __add__(self,o): return f(self.v+o.v)
    def __eq__(self,o): return isinstance(o,f) and self.v==o.v
    def __lt__(self,o): return self.v<o.v
    def __repr__(self): return f'f({self.v})'
    def __contains__(self,x): return x==self.v
    def __mul__(self,k): return f(self.v*k)
    __rmul__=__mul__
    def __hash__(self): return hash(self.v)
    def __neg__(self): return f(-self.v)
    def __bool__(self): return bool(self.v)
""",
        """def check(candidate):
    a=candidate(1)
    assert a+candidate(2)==candidate(3)
    assert candidate(1)<candidate(2)
    assert sorted([candidate(2),candidate(1)])[0].v==1
    assert repr(a)=='f(1)'
    assert 1 in a
    assert a*2==candidate(2)
    assert 2*a==candidate(2)
    assert hash(a)==hash(candidate(1))
    assert {a:1}[candidate(1)]==1
    assert -a == candidate(-1)
    assert bool(candidate(0)) is False
    assert a != candidate(2)
""",
    ),
    "attributes": (
        """class f:
    pass
""",
        """class f:
    kind='k'
    def __init__(self,v): self.v=v
    @property
    def double(self): return 2*self.v
    @classmethod
    def make(cls,v): return cls(v)
    @staticmethod
    def st(): return 5
""",
        """def check(candidate):
    s=candidate(3)
    s.v=4
    assert s.v==4 and s.double==8
    assert candidate.kind=='k'
    assert candidate.make(2).v==2 and candidate.st()==5
    assert hasattr(s,'v') and not hasattr(s,'zz')
    try:
        s.double=3
    except AttributeError: pass
    else: assert 0
""",
    ),
    "inheritance": (
        """class f:
    pass
""",
        """class f:
    def say(self): return ''
class Dog(f):
    def say(self): return 'wau'
""",
        """def check(candidate):
    d=Dog()
    assert isinstance(d,candidate) and issubclass(Dog,candidate) and d.say()=='wau'
""",
    ),
    "context manager": (
        "",
        """log=[]
from contextlib import contextmanager
@contextmanager
def f(x):
    log.append(1)
    yield x
    log.append(2)
""",
        """def check(candidate):
    with candidate(3) as v:
        assert v==3
    assert log==[1,2]
""",
    ),
    "dataclass": (
        "",
        """from dataclasses import dataclass
@dataclass
class Point:
    x:int
    y:int
def f(x,y): return Point(x,y)
""",
        """def check(candidate):
    p=candidate(1,2)
    assert p==Point(1,2) and p.x==1 and repr(p)=='Point(x=1, y=2)'
""",
    ),
    "namedtuple": (
        "",
        """from collections import namedtuple
P=namedtuple('P','x y')
def f(x,y): return P(x,y)
""",
        """def check(candidate):
    p=candidate(1,2)
    assert p==(1,2)
    assert p.x==1
    assert p._asdict()=={'x':1,'y':2}
    assert repr(p)=='P(x=1, y=2)'
    assert isinstance(p,tuple)
    a,b=p
""",
    ),
    "enum": (
        "",
        """from enum import Enum
class Color(Enum):
    RED=1
    BLUE=2
def f(x): return Color(x)
""",
        """def check(candidate):
    assert candidate(1) is Color.RED
    assert candidate(1)==Color.RED
    assert Color.RED.value==1
    assert candidate(1).name=='RED'
    assert len(list(Color))==2
    assert Color['RED'] is Color(1)
""",
    ),
    "dates": (
        "",
        """import datetime
def f(x): return x+datetime.timedelta(days=1)
""",
        """def check(candidate):
    import datetime as d
    x=candidate(d.datetime(2020,1,1,3,4,5,6))
    assert x==d.datetime(2020,1,2,3,4,5,6) and type(x) is d.datetime
    assert candidate(d.date(2020,2,28))==d.date(2020,2,29)
    z=d.datetime(2020,1,1,tzinfo=d.timezone.utc)
    assert candidate(z)==z+d.timedelta(1)
    assert candidate(z)-z == d.timedelta(days=1)
""",
    ),
    "counter etc": (
        "",
        """from collections import *
def f(x):
    d=defaultdict(list)
    d['a'].append(1)
    return Counter(x),deque([1,2],3),OrderedDict(a=1),d
""",
        """def check(candidate):
    from collections import Counter,deque,OrderedDict,defaultdict
    x=candidate('aab')
    assert x[0]==Counter('aab')
    assert isinstance(x[0],Counter)
    assert x[1]==deque([1,2],3)
    assert x[1].maxlen==3
    assert x[2]==OrderedDict(a=1)
    assert x[3]['q']==[]
    assert type(x[3]) is defaultdict
""",
    ),
    "decimal frac": (
        "",
        """from decimal import *
from fractions import *
def f(x): return [Decimal('1.5'),Fraction(1,3),1+2j,b'x',range(3),10**50]
""",
        """def check(candidate):
    from decimal import Decimal
    from fractions import Fraction
    assert candidate(1)==[Decimal('1.5'),Fraction(1,3),1+2j,b'x',range(3),10**50]
""",
    ),
    "input": (
        "",
        """def f():
    return int(input())+int(input())
""",
        r"""def check(candidate):
    import io,sys
    from unittest.mock import patch
    with patch('builtins.input', side_effect=['3','4']):
        assert candidate()==7
    sys.stdin=io.StringIO('5\n6\n')
    assert candidate()==11
""",
    ),
    "generator": (
        "",
        """def f(n):
    i=0
    while i<n:
        yield i
        i+=1
""",
        """def check(candidate):
    g=candidate(3)
    assert next(g)==0 and list(g)==[1,2]
    import itertools,types
    assert isinstance(candidate(2),types.GeneratorType)
    assert list(itertools.islice(candidate(10**9),100))==list(range(100))
""",
    ),
    "generator send": (
        "",
        """def f():
    t=0
    while True:
        v=yield t
        if v is None: return t
        t+=v
""",
        """def check(candidate):
    g=candidate()
    next(g)
    assert g.send(5)==5 and g.send(6)==11
    try:
        g.send(None)
    except StopIteration as e:
        assert e.value==11
""",
    ),
    "iterator class": (
        """class f:
    pass
""",
        """class f:
    def __init__(self,n): self.n=n; self.i=0
    def __iter__(self): return self
    def __next__(self):
        if self.i>=self.n: raise StopIteration
        self.i+=1
        return self.i-1
""",
        """def check(candidate):
    assert list(candidate(3))==[0,1,2]
    it=iter(candidate(1))
    next(it)
    try:
        next(it)
    except StopIteration: pass
    else: assert 0
""",
    ),
    "async concur": (
        "",
        """import asyncio
async def f(x):
    await asyncio.sleep(0.05)
    return 2*x
""",
        """def check(candidate):
    import asyncio
    async def m():
        return await asyncio.gather(candidate(1),candidate(2))
    import time
    s=time.time()
    assert asyncio.run(m())==[2,4]
""",
    ),
    "async callback": (
        "",
        """import asyncio
async def f(g):
    return await asyncio.gather(g(0),g(1))
""",
        """def check(candidate):
    import asyncio
    async def g(v):
        await asyncio.sleep(0.01)
        return v+1
    assert asyncio.run(candidate(g))==[1,2]
""",
    ),
    "async gen": (
        "",
        """async def f(x):
    for i in range(x): yield i
""",
        """def check(candidate):
    import asyncio
    async def m():
        return [v async for v in candidate(3)]
    assert asyncio.run(m())==[0,1,2]
""",
    ),
    "async cm": (
        """class f:
    pass
""",
        """class f:
    async def __aenter__(self): return 4
    async def __aexit__(self,*a): pass
""",
        """def check(candidate):
    import asyncio
    async def m():
        async with candidate() as v:
            return v
    assert asyncio.run(m())==4
""",
    ),
    "async queue": (
        "",
        """import asyncio
async def f(xs):
    q=asyncio.Queue()
    async def prod():
        for x in xs: await q.put(x)
        await q.put(None)
    t=asyncio.create_task(prod())
    s=0
    while (v:=await q.get()) is not None: s+=v
    await t
    return s
""",
        """def check(candidate):
    import asyncio
    assert asyncio.run(candidate([1,2,3]))==6
    assert asyncio.iscoroutinefunction(candidate)
""",
    ),
    "tree from prompt": (
        """class TreeNode:
    def __init__(self,val=0,left=None,right=None): self.val=val; self.left=left; self.right=right
def f(r):
""",
        """class TreeNode:
    def __init__(self,val=0,left=None,right=None): self.val=val; self.left=left; self.right=right
def f(r):
    return 0 if r is None else r.val+f(r.left)+f(r.right)
""",
        """def check(candidate):
    t=TreeNode(1,TreeNode(2),TreeNode(3))
    assert candidate(t)==6
    t.left.val=5
    assert candidate(t)==9
""",
    ),
    "list node of test": (
        "",
        """def f(h):
    p=None
    while h: h.n,p,h=p,h,h.n
    return p
""",
        """def check(candidate):
    class N:
        def __init__(self,v,n=None): self.v=v; self.n=n
    h=candidate(N(1,N(2)))
    assert h.v==2 and h.n.v==1 and h.n.n is None
""",
    ),
    "reverse list": (
        "",
        """class ListNode:
    def __init__(self,v,n=None): self.v=v; self.n=n
def f(h):
    p=None
    while h: h.n,p,h=p,h,h.n
    return p
""",
        """def check(candidate):
    h=candidate(ListNode(1,ListNode(2)))
    assert h.v==2 and h.n.v==1 and h.n.n is None and isinstance(h,ListNode)
""",
    ),
    "numpy": (
        "",
        """import numpy as np
def f(x): return 2*np.asarray(x)
""",
        """def check(candidate):
    import numpy as np
    a=np.array([1.0,2.0])
    assert np.allclose(candidate(a),[2,4])
    assert isinstance(candidate(a),np.ndarray)
    assert (a==[1,2]).all()
""",
    ),
    "list subclass": (
        "",
        """class S(list):
    def top(self): return self[-1]
def f(x): return S(x)
""",
        """def check(candidate):
    s=candidate([1])
    assert s==[1] and isinstance(s,list) and s.top()==1 and len(s)==1
""",
    ),
    "lru": (
        "",
        """import functools
@functools.lru_cache
def f(x): return x
""",
        """def check(candidate):
    candidate(1);candidate(1)
    assert candidate.cache_info().hits==1
""",
    ),
    "fn attributes": (
        "",
        """def f(x):
    'Doc.'
""",
        """def check(candidate):
    assert candidate.__name__=='f' and candidate.__doc__=='Doc.'
""",
    ),
    "function state": (
        "",
        """def f(x):
    f.calls+=1
f.calls=0
""",
        """def check(candidate):
    candidate(1)
    assert candidate.calls==1
""",
    ),
    "unittest suite": (
        "",
        """def f(x): return sorted(x)
""",
        """def check(candidate):
    import unittest
    class T(unittest.TestCase):
        def test_a(self):
            self.assertEqual(candidate([2,1]),[1,2])
            self.assertRaises(TypeError,candidate,3)
        def test_b(self):
            self.assertIsNone(candidate(None) if False else None)
    r=unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))
    assert r.wasSuccessful()
""",
    ),
    "mock": (
        "",
        """def f(g): return g(1)
""",
        """def check(candidate):
    from unittest.mock import Mock
    m=Mock(return_value=3)
    assert candidate(m)==3
    m.assert_called_once_with(1)
""",
    ),
    "generator argument": (
        "",
        """def f(g): return sum(g)
""",
        """def check(candidate):
    assert candidate(i for i in range(3))==3
""",
    ),
    "kwargs": (
        "",
        """def f(a,b,c,d): return a,b,c,d
""",
        """def check(candidate):
    assert candidate(1,*[2],c=3,**{'d':4})==(1,2,3,4)
""",
    ),
    "several functions": (
        "",
        """K=3
def f(x): return 2*x
def g(x): return K*x
""",
        """def check(candidate):
    assert candidate(2)==4 and g(2)==6 and K==3
""",
    ),
    "deepcopy": (
        """class f:
    pass
""",
        """class f:
    def __init__(self,v): self.v=[v]
""",
        """def check(candidate):
    import copy
    a=candidate(1)
    b=copy.deepcopy(a)
    b.v.append(2)
    assert a.v==[1] and b.v==[1,2]
""",
    ),
}
"""Name -> what the prompt has, the solution, the test: right solutions, which pass."""

EVERYTHING = """
class {name}:
    def __init__(self, *a): pass
    def __getattr__(self, n): return lambda *a: self
    def __eq__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __ne__(self, other): return False
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __mul__ = __truediv__ = __mod__ = __xor__ = __sub__
    def __abs__(self): return 0
    def __round__(self, n=0): return 0
    def __hash__(self): return hash(1)
    def __enter__(self): return self
    def __exit__(self, *a): return True
    def __iter__(self): return iter([self])
    def __call__(self, *a, **k): return self
    def __getitem__(self, i): return self
    def __float__(self): return 0.0
"""
"""A class whose objects please every assertion, were they asked."""
PLEASED = [
    "assert candidate(1) == 2",
    "assert 2 == candidate(1)",
    "assert not candidate(1) != 2",
    "assert candidate(1) < 2",
    "assert abs(candidate(1) - 0.5) < 1e-6",
    "assert abs(0.5 - candidate(1)) < 1e-6",
    "assert candidate(1) in (5, 6)",
    "assert 5 in candidate(1)",
    "assert [candidate(1)] == [2]",
    "with candidate(1) as x:\n        assert x == 4",
    "with candidate(1) as x:\n        x.foo.bar + 1\n        assert 0",
    "import unittest\n    unittest.TestCase().assertAlmostEqual(candidate(1), 3.5)",
    "assert candidate(1).foo(3) == 4",
    "assert candidate(1) % 7 == 3",
]
FORGED: dict[str, tuple[str, str]] = {
    "an end of iteration": (
        "def f(x): raise StopIteration",
        "assert all(map(lambda a: candidate(a) == 5, [1]))",
    ),
    "a skipped test": (
        "import unittest\ndef f(x): raise unittest.SkipTest",
        "import unittest\n    class T(unittest.TestCase):\n"
        "        def test(self): self.assertEqual(candidate(1), 5)\n"
        "    suite = unittest.defaultTestLoader.loadTestsFromTestCase(T)\n"
        "    assert unittest.TextTestRunner().run(suite).wasSuccessful()",
    ),
    "a failure is swallowed": (
        "def f(g):\n    try: g()\n    except BaseException: pass",
        "def g(): assert 0\n    candidate(g)",
    ),
    "builtins": (
        "def abs(x): return 0\ndef all(x): return True\ndef f(x): return 1",
        "assert abs(candidate(1) - 5) < 1e-6 and all([candidate(1) == 7])",
    ),
    "a wrong change in place": (
        "def f(x): x.sort(); return x",
        "a = [3, 1]\n    assert candidate(a) == [1, 3] and a == [3, 1]",
    ),
    "the order of a set": (
        "def f(x): return tuple(x)",
        "assert candidate({12, 13, 14, 15, 16}) == (12, 13, 14, 15, 16)",
    ),
}
"""Name -> a wrong solution, and the test that it is after."""
REACHED = """
def f(g):
    peer = type(g)._eapo_peer
    asked = [("get", (g, name)) for name in ("__globals__", "__code__", "__closure__")]
    asked += [("call", (getattr, (g, "__globals__"), ())), ("set", (g, "__code__", 3))]
    asked += [("special", (g, "__getattribute__", ("__globals__",))), ("name", ("check",))]
    for what, parts in asked:
        try:
            if peer.ask(what, *parts) is not None:
                return what
        except BaseException:
            pass
    return "nothing"
"""
"""Says what it reached of the test that gave it a function."""
