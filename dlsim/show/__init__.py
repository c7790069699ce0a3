"""Looking at it: a page with sliders, and the schedule as a film.

In comes a scenario, and what someone does with mouse, finger or keyboard; out goes what a browser
draws. The page computes nothing: every number on it is one of `simulate`, `summarize` and the
other rooms. Read in this order: `film.py` (frames from a trace; `order.py` puts causes before
effects, `why.py` and `quotes.py` say why), `lesson.py`, `lessons.py` (as data), `lesson_page.py`
(one as a file), `states.py` (what is shown), `pictures.py` (a run as few numbers), `answers.py`
(what the page asks for), `server.py`.
"""
