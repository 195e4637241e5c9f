"""Is a product complete and seamless: `verify` with the limits of the campaign, and the HTML reports.

Agreement with a reference belongs to `accuracy`.
"""
