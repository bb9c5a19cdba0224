"""The phone library, driven through its generated Python bindings: the same objects and records that Kotlin and Swift see.

Run by scripts/test-bindings, which generates the bindings and names the program that writes a sample store in SAMPLE_STORE.
"""

import os
import pathlib
import subprocess
import tempfile
import unittest
from datetime import datetime, timedelta, timezone

import crm_dispatch_mobile as mobile

MIDNIGHT = datetime(2026, 2, 3, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def clock(hours, seconds=0):
    """The phone's clocks so many hours after midnight, seven hours after it was switched on."""
    return mobile.DeviceClock(
        wall=MIDNIGHT + timedelta(hours=hours, seconds=seconds),
        monotonic_ms=int((hours + 7) * 3_600_000 + seconds * 1000),
        boot_id="boot-1",
    )


class PhoneTest(unittest.TestCase):
    """A technician's phone on the morning of 3 February 2026."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def open(self, name="phone.db"):
        return mobile.Phone.open(str(self.folder / name), "binding-test 1.0", MIDNIGHT)

    def open_sample(self):
        path = self.folder / "phone.db"
        subprocess.run([os.environ["SAMPLE_STORE"], str(path)], check=True)
        return self.open()

    def test_a_new_store_is_empty_and_says_that_it_is_new(self):
        phone = self.open()
        notice = phone.open_notice()
        self.assertTrue(notice.created)
        self.assertIsNone(notice.set_aside_path)
        self.assertEqual(phone.visits(MIDNIGHT, MIDNIGHT + DAY, True), [])
        self.assertIsNone(phone.sync_status().technician_id)

    def test_the_day_is_listed_by_planned_start(self):
        phone = self.open_sample()
        self.assertFalse(phone.open_notice().created)
        today = phone.visits(MIDNIGHT, MIDNIGHT + DAY, False)
        self.assertEqual([visit.dispatch_id for visit in today], ["DSP-100", "DSP-101"])
        first = today[0]
        self.assertEqual(first.title, "Replace the circulation pump")
        self.assertEqual(first.service_order_id, "SO-100")
        self.assertEqual(first.stage, mobile.VisitStage.ASSIGNED)
        self.assertEqual(first.urgency, mobile.Urgency.HIGH)
        self.assertEqual(first.scheduled_start, MIDNIGHT + timedelta(hours=8))
        self.assertEqual(first.address, "Praterstraße 1, 1020 Wien")
        self.assertAlmostEqual(first.latitude, 48.2137)
        self.assertEqual(first.lead, "TECH-10")
        tomorrow = phone.visits(MIDNIGHT + DAY, MIDNIGHT + 2 * DAY, False)
        self.assertEqual([visit.dispatch_id for visit in tomorrow], ["DSP-102"])

    def test_one_visit_tells_what_to_do(self):
        visit = self.open_sample().visit("DSP-101")
        self.assertEqual(visit.summary.title, "No hot water on the third floor")
        self.assertEqual(visit.instructions, "Ring twice.")
        self.assertEqual(visit.access_notes, "Key box left of the door")
        self.assertEqual([line.prompt for line in visit.checklist], ["Pressure in bar?"])
        self.assertEqual(visit.unsent, 0)

    def test_a_visit_that_was_given_away_says_why_until_it_was_seen(self):
        phone = self.open_sample()
        (gone,) = phone.gone_visits()
        self.assertEqual((gone.dispatch_id, gone.reason), ("DSP-103", mobile.GoneReason.REASSIGNED))
        self.assertEqual((gone.note, gone.by), ("Closer to Anna", "dispatcher-1"))
        self.assertTrue(phone.acknowledge_gone("DSP-103", MIDNIGHT))
        self.assertEqual(phone.gone_visits(), [])

    def test_work_done_offline_is_on_disk_and_counted(self):
        phone = self.open_sample()
        phone.act("DSP-100", mobile.Action.ACCEPT(eta=MIDNIGHT + timedelta(hours=8)), clock(7), None)
        phone.act("DSP-100", mobile.Action.START_TRAVEL(eta=None), clock(7.5), None)
        fix = mobile.PositionFix(latitude=48.2137, longitude=16.3835, accuracy_m=8.0)
        taken = phone.act("DSP-100", mobile.Action.ARRIVE(), clock(8), fix)
        self.assertEqual(taken.visit.stage, mobile.VisitStage.ARRIVED)
        self.assertEqual(taken.unsent, 3)
        phone.act("DSP-100", mobile.Action.START_WORK(), clock(8, 30), None)
        phone.act("DSP-100", mobile.Action.COMPLETE(), clock(9), None)

        del phone  # The app is gone; what it was told is stored stays stored.
        phone = self.open()
        status = phone.sync_status()
        self.assertEqual((status.technician_id, status.unsent), ("TECH-10", 5))
        self.assertEqual(status.unsent_since, MIDNIGHT + timedelta(hours=7))
        self.assertEqual(phone.visit("DSP-100").summary.stage, mobile.VisitStage.COMPLETED)

    def test_what_is_not_possible_is_a_typed_error_and_stores_nothing(self):
        phone = self.open_sample()
        with self.assertRaises(mobile.PhoneError.NotPossible) as refused:
            phone.act("DSP-100", mobile.Action.RESUME(), clock(7), None)
        self.assertEqual(refused.exception.hindrance, mobile.Hindrance.NOT_PAUSED)
        with self.assertRaises(mobile.PhoneError.UnknownVisit) as unknown:
            phone.visit("DSP-999")
        self.assertEqual(unknown.exception.dispatch_id, "DSP-999")
        with self.assertRaises(mobile.PhoneError.InvalidArgument):
            phone.visit("no id, this")
        self.assertEqual(phone.sync_status().unsent, 0)

    def test_nobody_acts_before_logging_in(self):
        phone = self.open()
        with self.assertRaises(mobile.PhoneError.NotLoggedIn):
            phone.act("DSP-100", mobile.Action.ARRIVE(), clock(8), None)
        phone.log_in("tenant-001", "TECH-10")
        self.assertEqual(phone.sync_status().technician_id, "TECH-10")

    def test_a_second_engine_on_the_same_file_is_turned_away(self):
        phone = self.open()
        with self.assertRaises(mobile.PhoneError.AlreadyOpen):
            self.open()
        self.assertTrue(phone.open_notice().created)

    def test_a_folder_is_no_store_and_stays_where_it_is(self):
        (self.folder / "phone.db").mkdir()
        (self.folder / "phone.db" / "letter.txt").write_text("keep me")
        with self.assertRaises(mobile.PhoneError.StoreFailed):
            self.open()
        self.assertEqual((self.folder / "phone.db" / "letter.txt").read_text(), "keep me")

    def test_a_file_that_is_no_database_is_set_aside_and_reported(self):
        (self.folder / "phone.db").write_bytes(b"this is no database, but it may be all that is left " * 100)
        notice = self.open().open_notice()
        self.assertTrue(notice.created)
        self.assertIn("damaged", notice.set_aside_reason)
        self.assertTrue(pathlib.Path(notice.set_aside_path).read_bytes().startswith(b"this is no database"))


if __name__ == "__main__":
    unittest.main()
