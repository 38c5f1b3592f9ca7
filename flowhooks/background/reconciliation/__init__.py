"""Reconciliation: compare the history of an engine with the events, and take in the instances that have none.

clients     the engine clients of the sources, with bounded calls and checked results
rules       pure functions: windows, and what becomes of an instance
context     a source, the result of a round, and the lease
pages       the instances of a page, decided and written
pace        rests between the pages of a round while callbacks arrive
round       one round for one source: window, pages, position
due         the instances whose grace has ended
reconciler  the rounds of one source: lease, errors
service     a thread for each source, and the operator's entry points
"""
