"""Every secret that the suite uses, searched for in everything that a gateway wrote, logged, stored and answered.

`search.py` looks for secrets in texts; `secrets.py` notes secrets where they are made or given; `places.py` and
`answers.py` take what may not hold them. `tests/conftest.py` begins a search for each module of tests, and fails the
module with what was found.

    with searching() as search:     # in a test of the search itself: apart from that of the module
        ...
    assert search.found() == []
"""
