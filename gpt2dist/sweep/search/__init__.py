"""Which trials are tried and which end early.

Ray Tune only proposes and stops: it asks the sweeper for the next trial and says whose curve is not
worth going on with. The journal is the truth; Tune's own state lives in a temporary folder and is
thrown away, and a resumed sweep tells a new Tune what the journal and the rows say.
"""
