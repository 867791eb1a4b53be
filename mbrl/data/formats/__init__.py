"""On-disk formats, one file each; `mbrl.data.formats.base.FORMATS` finds them by name."""
