"""The phone library, driven through its generated Python bindings: the same objects and records that Kotlin and Swift see.

Run by scripts/test-bindings, which generates the bindings and names the program that writes a sample store in SAMPLE_STORE.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest
from datetime import datetime, timedelta, timezone

import crm_dispatch_mobile as mobile

MIDNIGHT = datetime(2026, 2, 3, tzinfo=timezone.utc)
DAY = timedelta(days=1)
PATIENCE = 20


class Tokens(mobile.TokenProvider):
    """The app's sign-in; what it answers is up to the test."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda: "a token that no server knows")
        self.asked = 0

    async def fetch_token(self, rejected):
        self.asked += 1
        return self.answer()


class Storage(mobile.SecureStorage):
    """A keychain in memory."""

    def __init__(self):
        self.values = {}

    def get(self, name):
        return self.values.get(name)

    def put(self, name, value):
        self.values[name] = value

    def remove(self, name):
        self.values.pop(name, None)


class Lines(mobile.LogSink):
    def __init__(self):
        self.lines = []

    def log(self, level, message):
        self.lines.append((level, message))


class Heard(mobile.VisitListObserver, mobile.SyncStatusObserver):
    """Remembers what it hears, and lets a test wait for it."""

    def __init__(self):
        self.heard = []
        self.changed = threading.Condition()

    def on_visits(self, visits):
        self.remember(visits)

    def on_sync_status(self, status):
        self.remember(status)

    def remember(self, what):
        with self.changed:
            self.heard.append(what)
            self.changed.notify_all()

    async def until(self, holds):
        def wait():
            with self.changed:
                return self.changed.wait_for(lambda: any(map(holds, self.heard)), PATIENCE)

        if not await asyncio.to_thread(wait):
            raise AssertionError(f"never: {self.heard}")


class PhoneTest(unittest.IsolatedAsyncioTestCase):
    """A technician's phone on the morning of 3 February 2026."""

    async def asyncSetUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # Calls of the library into async Python run on this loop; its debugging dislikes how UniFFI cancels them.
        asyncio.get_running_loop().set_debug(False)
        mobile.uniffi_set_event_loop(asyncio.get_running_loop())

    def open(self, tokens=None, logs=None, server_url="http://127.0.0.1:9"):
        options = mobile.ClientOptions(
            path=str(self.folder / "phone.db"),
            server_url=server_url,
            app="binding-test 1.0",
            encryption=mobile.Encryption.OFF,
            network_at_start=True,
            log_level=mobile.LogLevel.DEBUG,
        )
        client = mobile.DispatchClient.open(options, tokens or Tokens(), Storage(), logs)
        self.addAsyncCleanup(client.shutdown)
        return client

    def open_sample(self, **kwargs):
        path = self.folder / "phone.db"
        subprocess.run([os.environ["SAMPLE_STORE"], str(path)], check=True)
        return self.open(**kwargs)

    async def test_a_new_store_is_empty_and_says_that_it_is_new(self):
        phone = self.open()
        notice = phone.open_notice()
        self.assertTrue(notice.created)
        self.assertIsNone(notice.set_aside_path)
        self.assertEqual(await phone.visits(mobile.VisitFilter(unscheduled=True)), [])
        status = await phone.sync_status()
        self.assertIsNone(status.technician_id)
        self.assertEqual(status.connection, mobile.ConnectionState.STOPPED)

    async def test_the_day_is_listed_by_planned_start(self):
        phone = self.open_sample()
        self.assertFalse(phone.open_notice().created)
        today = await phone.visits(mobile.VisitFilter(_from=MIDNIGHT, until=MIDNIGHT + DAY))
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
        tomorrow = await phone.visits(mobile.VisitFilter(_from=MIDNIGHT + DAY, until=MIDNIGHT + 2 * DAY))
        self.assertEqual([visit.dispatch_id for visit in tomorrow], ["DSP-102"])
        done = await phone.visits(mobile.VisitFilter(stages=[mobile.VisitStage.COMPLETED]))
        self.assertEqual(done, [])

    async def test_one_visit_tells_what_to_do(self):
        visit = await self.open_sample().visit("DSP-101")
        self.assertEqual(visit.summary.title, "No hot water on the third floor")
        self.assertEqual(visit.instructions, "Ring twice.")
        self.assertEqual(visit.access_notes, "Key box left of the door")
        self.assertEqual([line.prompt for line in visit.checklist], ["Pressure in bar?"])
        self.assertEqual(visit.unsent, 0)

    async def test_a_visit_that_was_given_away_says_why_until_it_was_seen(self):
        phone = self.open_sample()
        (gone,) = await phone.gone_visits()
        self.assertEqual((gone.dispatch_id, gone.reason), ("DSP-103", mobile.GoneReason.REASSIGNED))
        self.assertEqual((gone.note, gone.by), ("Closer to Anna", "dispatcher-1"))
        self.assertTrue(await phone.acknowledge_gone("DSP-103"))
        self.assertEqual(await phone.gone_visits(), [])

    async def test_work_done_offline_is_on_disk_and_counted(self):
        phone = self.open_sample()
        before = datetime.now(timezone.utc) - timedelta(seconds=1)
        await phone.act("DSP-100", mobile.Action.ACCEPT(eta=MIDNIGHT + timedelta(hours=8)), None)
        await phone.act("DSP-100", mobile.Action.START_TRAVEL(eta=None), None)
        fix = mobile.PositionFix(latitude=48.2137, longitude=16.3835, accuracy_m=8.0)
        taken = await phone.act("DSP-100", mobile.Action.ARRIVE(), fix)
        self.assertEqual(taken.visit.stage, mobile.VisitStage.ARRIVED)
        self.assertEqual(taken.unsent, 3)
        for action in [
            mobile.Action.START_WORK(),
            mobile.Action.EDIT_NOTES(at=0, delete=0, insert="Pump was seized."),
            mobile.Action.ANSWER_CHECKLIST(item_id="pressure", value="1.4"),
            mobile.Action.USE_PART(part_number="PUMP-7", quantity=1, serial_number="SN-1"),
            mobile.Action.LOG_TIME(category="labour", minutes=45),
            mobile.Action.SIGN(signer="Frau Huber", sha256="0" * 64),
            mobile.Action.SUMMARISE(text="Pump replaced."),
            mobile.Action.COMPLETE(),
        ]:
            await phone.act("DSP-100", action, None)

        await phone.shutdown()  # The app is gone; what it was told is stored stays stored.
        phone = self.open()
        status = await phone.sync_status()
        self.assertEqual((status.technician_id, status.unsent), ("TECH-10", 11))
        self.assertGreaterEqual(status.unsent_since, before)
        visit = await phone.visit("DSP-100")
        self.assertEqual(visit.summary.stage, mobile.VisitStage.COMPLETED)
        self.assertEqual((visit.notes, visit.closing_summary), ("Pump was seized.", "Pump replaced."))
        self.assertEqual([(used.part_number, used.serial_number) for used in visit.parts_used], [("PUMP-7", "SN-1")])
        self.assertEqual([(line.category, line.minutes) for line in visit.time_worked], [("labour", 45)])
        self.assertEqual([answer.value for answer in visit.checklist[0].answers], ["1.4"])

    async def test_what_is_not_possible_is_a_typed_error_and_stores_nothing(self):
        phone = self.open_sample()
        with self.assertRaises(mobile.PhoneError.NotPossible) as refused:
            await phone.act("DSP-100", mobile.Action.RESUME(), None)
        self.assertEqual(refused.exception.hindrance, mobile.Hindrance.NOT_PAUSED)
        with self.assertRaises(mobile.PhoneError.UnknownVisit) as unknown:
            await phone.visit("DSP-999")
        self.assertEqual(unknown.exception.dispatch_id, "DSP-999")
        with self.assertRaises(mobile.PhoneError.InvalidArgument):
            await phone.visit("no id, this")
        self.assertEqual((await phone.sync_status()).unsent, 0)

    async def test_nobody_acts_or_connects_before_signing_in(self):
        phone = self.open()
        with self.assertRaises(mobile.PhoneError.NotSignedIn):
            await phone.act("DSP-100", mobile.Action.ARRIVE(), None)
        with self.assertRaises(mobile.PhoneError.NotSignedIn):
            await phone.start()
        self.assertTrue((await phone.sign_in("tenant-001", "TECH-10")).changed)
        self.assertEqual((await phone.sync_status()).technician_id, "TECH-10")

    async def test_signing_out_seals_what_is_unsent_and_the_next_technician_never_sees_it(self):
        phone = self.open_sample()
        await phone.act("DSP-100", mobile.Action.ACCEPT(eta=None), None)
        self.assertEqual((await phone.sign_out()).sealed, 1)
        await phone.sign_in("tenant-001", "TECH-20")
        self.assertEqual(await phone.visits(mobile.VisitFilter()), [])
        self.assertEqual((await phone.sync_status()).unsent, 0)
        back = await phone.sign_in("tenant-001", "TECH-10")
        self.assertEqual((back.unsealed, (await phone.sync_status()).unsent), (1, 1))

    async def test_an_observer_hears_the_list_at_once_and_after_each_change(self):
        phone = self.open_sample()
        heard = Heard()
        subscription = phone.observe_visits(mobile.VisitFilter(), heard)
        await heard.until(lambda visits: visits[0].stage == mobile.VisitStage.ASSIGNED)
        await phone.act("DSP-100", mobile.Action.ACCEPT(eta=None), None)
        await heard.until(lambda visits: visits[0].stage == mobile.VisitStage.CONFIRMED)
        self.assertTrue(subscription.is_active())
        subscription.cancel()

    async def test_an_exception_in_the_token_provider_is_a_problem_and_no_crash(self):
        def broken():
            raise RuntimeError("no keys in this pocket")

        tokens, heard = Tokens(broken), Heard()
        phone = self.open_sample(tokens=tokens)
        subscription = phone.observe_sync_status(heard)
        await phone.start()
        await heard.until(lambda status: status.problem is not None and status.problem.is_NO_TOKEN())
        report = await phone.sync_now(timedelta(milliseconds=200))
        self.assertFalse(report.caught_up)
        subscription.cancel()
        self.assertEqual([visit.dispatch_id for visit in await phone.visits(mobile.VisitFilter())][0], "DSP-100")

    async def test_a_sign_in_that_is_needed_ends_a_job_before_its_deadline(self):
        def expired():
            raise mobile.HostError.SignInNeeded("the session has ended")

        phone = self.open_sample(tokens=Tokens(expired))
        report = await phone.sync_now(timedelta(hours=1))
        self.assertFalse(report.caught_up)
        self.assertTrue(report.problem.is_SIGN_IN_NEEDED())

    async def test_a_phone_that_sleeps_holds_no_file_and_wakes_up_as_it_was(self):
        phone = self.open_sample()
        await phone.act("DSP-100", mobile.Action.ACCEPT(eta=None), None)
        await phone.suspend()
        with self.assertRaises(mobile.PhoneError.Closed):
            await phone.visits(mobile.VisitFilter())
        other = self.open()  # The lock is free.
        await other.shutdown()
        await phone.resume()
        self.assertEqual((await phone.sync_status()).unsent, 1)

    async def test_calls_after_shutdown_are_errors(self):
        phone = self.open_sample()
        await phone.shutdown()
        with self.assertRaises(mobile.PhoneError.Closed):
            await phone.visits(mobile.VisitFilter())
        with self.assertRaises(mobile.PhoneError.Closed):
            await phone.start()
        with self.assertRaises(mobile.PhoneError.Closed):
            phone.observe_visits(mobile.VisitFilter(), Heard())

    async def test_diagnostics_name_no_customer(self):
        report = await self.open_sample().diagnostics()
        self.assertEqual(json.loads(report)["store"]["visits"], 3)
        for secret in ["Huber", "Prater", "pump", "DSP-100"]:
            self.assertNotIn(secret, report)

    async def test_a_second_engine_on_the_same_file_is_turned_away(self):
        phone = self.open()
        with self.assertRaises(mobile.PhoneError.AlreadyOpen):
            self.open()
        self.assertTrue(phone.open_notice().created)

    async def test_a_folder_is_no_store_and_stays_where_it_is(self):
        (self.folder / "phone.db").mkdir()
        (self.folder / "phone.db" / "letter.txt").write_text("keep me")
        with self.assertRaises(mobile.PhoneError.StoreFailed):
            self.open()
        self.assertEqual((self.folder / "phone.db" / "letter.txt").read_text(), "keep me")

    async def test_a_file_that_is_no_database_is_set_aside_and_reported(self):
        (self.folder / "phone.db").write_bytes(b"this is no database, but it may be all that is left " * 100)
        notice = self.open().open_notice()
        self.assertTrue(notice.created)
        self.assertIn("damaged", notice.set_aside_reason)
        self.assertTrue(pathlib.Path(notice.set_aside_path).read_bytes().startswith(b"this is no database"))


if __name__ == "__main__":
    unittest.main()
