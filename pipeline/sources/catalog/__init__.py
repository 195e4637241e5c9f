"""The input catalog: one STAC item per tile, checked when it is indexed and read when it is mapped.

`index` checks deliveries and writes the catalog, `reader` opens one domain of it. Rules about single files belong to
`inspection`, pixels to `reading`.
"""
