"""What tests share: oracles, streams of events, servers and flows that really run. No test is here."""
