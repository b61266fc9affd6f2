"""``metaspeech compare``: which parameters differ between executions, which figures, and whether chance alone could.

| module | what |
|---|---|
| runs | executions found in MLflow by name, and what they left there |
| differences | parameters side by side; figures paired over the same speakers, or why they cannot be |
| show, plot | for a terminal; as a figure |
"""
