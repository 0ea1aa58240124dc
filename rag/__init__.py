"""The story: documents in, ranked pages and answers out.

The only package that knows both models and index.
"""
