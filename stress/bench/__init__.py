"""What deferpool costs beside its peers: cells.py says what is timed, peers.py who they are, race.py runs them."""
