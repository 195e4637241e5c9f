"""The map page of an edition: one static folder of HTML and JavaScript that draws the edition's Zarr in a browser.

`web` has its sources and names the npm packages that it needs; `building` bundles them into `built` when the package is
built; `page_files` writes them into an edition.
"""
