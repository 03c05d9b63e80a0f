"""SAFE folders that tests make: the true structure of XML, with lattices like those of real products."""

import warnings
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

MANIFEST = """<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:safe="http://www.esa.int/safe/sentinel-1.0"
 xmlns:s1="http://www.esa.int/safe/sentinel-1.0/sentinel-1"><metadataSection>
 <metadataObject ID="processing"><metadataWrap><xmlData><safe:processing><safe:facility>
  <safe:software name="Sentinel-1 IPF" version="{ipf}"/></safe:facility>
  </safe:processing></xmlData></metadataWrap></metadataObject>
 <metadataObject ID="measurementOrbitReference"><metadataWrap><xmlData><safe:orbitReference>
  <safe:orbitNumber type="start">30128</safe:orbitNumber>
  <safe:relativeOrbitNumber type="start">2</safe:relativeOrbitNumber>
  <safe:extension><s1:orbitProperties><s1:pass>DESCENDING</s1:pass></s1:orbitProperties></safe:extension>
 </safe:orbitReference></xmlData></metadataWrap></metadataObject></metadataSection></xfdu:XFDU>
"""
HEADER = """<adsHeader><missionId>{mission}</missionId><productType>{type}</productType>
<polarisation>{polarization}</polarisation><mode>{mode}</mode><swath>{swath}</swath>
<startTime>2021-12-23T05:11:22.594441</startTime><stopTime>2021-12-23T05:11:47.593171</stopTime>
<absoluteOrbitNumber>30128</absoluteOrbitNumber><missionDataTakeId>235857</missionDataTakeId>
<imageNumber>{number:03d}</imageNumber></adsHeader>"""


@dataclass(frozen=True, kw_only=True)
class Safe:
    """A product of one or more measurement files."""

    mode: str = "IW"
    type: str = "GRD"
    polarizations: tuple[str, ...] = ("vv",)
    shape: tuple[int, int] = (300, 420)
    line_step: int = 90
    pixel_step: int = 40
    ipf: str = "003.40"
    noise_ipf_290: bool = True
    is_denoised: str = "false"
    short_names: bool = False
    suffix: str = ""
    mission: str = "S1B"

    @property
    def name(self) -> str:
        kind = {"GRD": "GRDH", "SLC": "SLC_"}[self.type]
        return (
            f"{self.mission}_{self.mode}_{kind}_1SDV_20211223T051122_20211223T051147_030128_039951_5371.SAFE"
        )

    def stem(self, number: int) -> str:
        polarization = self.polarizations[number - 1]
        swath = self.mode.lower() + ("1" if self.type == "SLC" and self.mode in ("IW", "EW") else "")
        if self.short_names:
            return f"{swath}-{polarization}"
        return (
            f"{self.mission.lower()}-{swath}-{self.type.lower()}-{polarization}-20211223t051122-20211223t051147-"
            f"030128-039951-{number:03d}"
        )

    @property
    def pixels(self) -> np.ndarray:
        last = self.shape[1] - 1
        return np.unique([*range(0, last, self.pixel_step), last])

    @property
    def lines(self) -> np.ndarray:
        """The first of a GRD is 0, that of an SLC before it; the last is beyond the image."""
        first = 0 if self.type == "GRD" else -self.line_step // 2
        return np.arange(first, self.shape[0] + self.line_step, self.line_step)

    def sigma(self, line: float) -> np.ndarray:
        """The table of sigmaNought along a line: that of GRD is the same along all."""
        drift = 0 if self.type == "GRD" else 0.004 * line / self.shape[0]
        return np.linspace(558, 665, len(self.pixels)) * (1 + drift)

    def header(self, number: int) -> str:
        swath = self.mode if self.type == "GRD" else f"{self.mode}1"
        return HEADER.format(
            mission=self.mission,
            type=self.type,
            polarization=self.polarizations[number - 1].upper(),
            mode=self.mode,
            swath=swath,
            number=number,
        )

    def calibration(self, number: int) -> str:
        vectors = []
        for line in self.lines:
            sigma = self.sigma(line)
            tables = {
                "sigmaNought": sigma,
                "betaNought": np.full(len(sigma), 474.0),
                "gamma": sigma * 0.93,
                "dn": np.full(len(sigma), 401.59),
            }
            vectors.append(_vector("calibrationVector", line, self.pixels, tables))
        listed = f'<calibrationVectorList count="{len(vectors)}">{"".join(vectors)}</calibrationVectorList>'
        information = (
            "<calibrationInformation><absoluteCalibrationConstant>1.393000e+00</absoluteCalibrationConstant>"
            "</calibrationInformation>"
        )
        return f"<calibration>{self.header(number)}{information}{listed}</calibration>"

    def noise_across(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Line, pixels and noise of vectors: ragged, and zero at the far edge."""
        out = []
        for i, line in enumerate([*self.lines[:-1], self.shape[0] - 1]):
            pixels = self.pixels if i % 2 == 0 else np.delete(self.pixels, 2)
            noise = 900 + 300 * np.cos(pixels / 90.0) + 2.0 * i
            noise[-2:] = 0
            out.append((int(line), pixels, noise))
        return out

    def noise_along(self) -> list[tuple[tuple[int, int, int, int], np.ndarray, np.ndarray]]:
        """(first line, last line, first pixel, last pixel), lines and factors of blocks: of unlike counts."""
        height, width = self.shape
        edges = [0, width // 3, 2 * width // 3, width]
        blocks = []
        for i, (left, right) in enumerate(pairwise(edges)):
            lines = np.unique([*range(0, height - 1, 7 + i), height - 1])
            blocks.append(((0, height - 1, left, right - 1), lines, 1 + 0.1 * (1 + np.sin(lines / 11.0 + i))))
        return blocks

    def noise(self, number: int) -> str:
        name, table = (
            ("noiseRangeVector", "noiseRangeLut") if self.noise_ipf_290 else ("noiseVector", "noiseLut")
        )
        vectors = [_vector(name, line, pixels, {table: noise}) for line, pixels, noise in self.noise_across()]
        text = f'<{name}List count="{len(vectors)}">{"".join(vectors)}</{name}List>'
        if self.noise_ipf_290:
            blocks = []
            for (top, bottom, left, right), lines, factors in self.noise_along():
                blocks.append(
                    f"<noiseAzimuthVector><swath>IW1</swath><firstAzimuthLine>{top}</firstAzimuthLine>"
                    f"<firstRangeSample>{left}</firstRangeSample><lastAzimuthLine>{bottom}</lastAzimuthLine>"
                    f"<lastRangeSample>{right}</lastRangeSample><line count='{len(lines)}'>{_texts(lines)}</line>"
                    f"<noiseAzimuthLut count='{len(factors)}'>{_texts(factors)}</noiseAzimuthLut>"
                    "</noiseAzimuthVector>"
                )
            text += (
                f'<noiseAzimuthVectorList count="{len(blocks)}">{"".join(blocks)}</noiseAzimuthVectorList>'
            )
        return f"<noise>{self.header(number)}{text}</noise>"

    def product(self, number: int) -> str:
        points = "".join(
            f"<geolocationGridPoint><azimuthTime>2021-12-23T05:11:22.5</azimuthTime><slantRangeTime>5.3e-03</slantRangeTime>"
            f"<line>{line}</line><pixel>{pixel}</pixel><latitude>{45 - line * 1e-4}</latitude>"
            f"<longitude>{11 + pixel * 1e-4}</longitude>"
            f"<height>10.0</height><incidenceAngle>{30 + 16 * pixel / self.shape[1]:.9e}</incidenceAngle>"
            "<elevationAngle>27.0</elevationAngle></geolocationGridPoint>"
            for line in _grid(self.shape[0], 10)
            for pixel in _grid(self.shape[1], 21)
        )
        height, width = self.shape
        return (
            f"<product>{self.header(number)}<generalAnnotation><productInformation><pass>Descending</pass>"
            "</productInformation></generalAnnotation><imageAnnotation><imageInformation>"
            f"<incidenceAngleMidSwath>3.858e+01</incidenceAngleMidSwath><numberOfSamples>{width}</numberOfSamples>"
            f"<numberOfLines>{height}</numberOfLines></imageInformation><processingInformation>"
            f"<thermalNoiseCorrectionPerformed>{self.is_denoised}</thermalNoiseCorrectionPerformed>"
            f"</processingInformation></imageAnnotation><geolocationGrid>"
            f"<geolocationGridPointList count='210'>{points}</geolocationGridPointList></geolocationGrid></product>"
        )

    def dn(self, number: int) -> np.ndarray:
        """Digital numbers; the first columns are zero, as the edges of real ones are."""
        rng = np.random.default_rng(number)
        power = 0.05 * rng.gamma(4.4, 1 / 4.4, self.shape)
        if self.type == "SLC":
            parts = rng.normal(0, 40, (2, *self.shape)).round()
            return (parts[0] + 1j * parts[1]).astype(np.complex64)
        dn = np.clip(np.rint(600 * np.sqrt(power)), 1, 65535).astype(np.uint16)
        dn[:, :3] = 0
        return dn


def write_safe(folder: Path, safe: Safe) -> Path:
    """Write a product; return its folder."""
    root = folder / safe.name
    for number in range(1, len(safe.polarizations) + 1):
        stem, dn = safe.stem(number), safe.dn(number)
        write_measurement(root / "measurement" / f"{stem}{safe.suffix}.tiff", dn, ipf=safe.ipf)
        annotation = root / "annotation"
        (annotation / "calibration").mkdir(parents=True, exist_ok=True)
        (annotation / f"{stem}.xml").write_text(safe.product(number))
        (annotation / "calibration" / f"calibration-{stem}.xml").write_text(safe.calibration(number))
        (annotation / "calibration" / f"noise-{stem}.xml").write_text(safe.noise(number))
    (root / "manifest.safe").write_text(MANIFEST.format(ipf=safe.ipf))
    return root


def write_measurement(path: Path, dn: np.ndarray, *, ipf: str = "003.40", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = dn.shape
    places = [(r, c) for r in (0, height // 2, height - 1) for c in (0, width // 2, width - 1)]
    gcps = [GroundControlPoint(row=r, col=c, x=11 + c * 1e-4, y=45 - r * 1e-4, z=0.0) for r, c in places]
    dtype = "complex_int16" if dn.dtype.kind == "c" else dn.dtype
    made = {
        "driver": "GTiff",
        "count": 1,
        "height": height,
        "width": width,
        "dtype": dtype,
        "crs": "EPSG:4326",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **(made | options), gcps=gcps) as dataset:
            dataset.write(dn, 1)
            dataset.update_tags(TIFFTAG_SOFTWARE=f"Sentinel-1 IPF {ipf}")
    return path


def zip_product(root: Path, archive: Path) -> Path:
    """Write a product's folder into an archive, as it is downloaded."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(root.rglob("*")):
            out.write(path, path.relative_to(root.parent))
    return archive


def _vector(name: str, line: int, pixels: np.ndarray, tables: dict[str, np.ndarray]) -> str:
    parts = "".join(f'<{k} count="{len(v)}">{_texts(v)}</{k}>' for k, v in tables.items())
    time = "<azimuthTime>2021-12-23T05:11:22.594441</azimuthTime>"
    return f'<{name}>{time}<line>{line}</line><pixel count="{len(pixels)}">{_texts(pixels)}</pixel>{parts}</{name}>'


def _texts(values: np.ndarray) -> str:
    return " ".join(str(v) if v.dtype.kind in "iu" else f"{v:.6e}" for v in values)


def _grid(size: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, size - 1, count).round().astype(int)).tolist()
