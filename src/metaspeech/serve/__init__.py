"""``metaspeech serve``: voices behind HTTP on loopback, with a page for people.

| module | what it holds |
|---|---|
| command | the options, and the process from its start to SIGTERM |
| limits | what one may ask of it |
| app | FastAPI put together |
| guard | who may ask at all: hosts, origins, sizes, numbers, headers of every answer |
| problems | refusals as JSON that says what to do |
| speech, adaptations, voices, state | the routes |
| jobs | adaptations from the queue to the voice |
| pool | processes that work, one a core; queue, time limits, cancellation |
| tasks | what runs in these processes |
| page | the page: HTML, style and scripts |
"""
